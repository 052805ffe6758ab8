/**
 * Shell text that defines `as_user NAME program …`: runs a program as another user, from root, without sudo. sudo would
 * do for an ordinary command, but it closes inherited descriptors, may put the command into a session of its own
 * (`use_pty`), and then does not pass on a signal that `timeout` sends to the whole group.
 * HOME is set because libpq looks there for .pgpass.
 */
export const AS_USER = `as_user() {
  user=$1
  shift
  if [ "$user" = root ]; then
    "$@"
    return
  fi
  entry=$(getent passwd "$user") || { echo "understudy: there is no user $user on this host" >&2; return 1; }
  home=$(printf %s "$entry" | cut -d: -f6)
  uid=$(id -u "$user")
  gid=$(id -g "$user")
  setpriv --reuid="$uid" --regid="$gid" --init-groups env HOME="$home" USER="$user" LOGNAME="$user" "$@"
}`
