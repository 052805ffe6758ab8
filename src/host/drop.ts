/**
 * Shell text that defines `as_user NAME program …`: runs a program as another user, from root, without sudo. sudo would
 * do for an ordinary command, but it closes inherited descriptors, may put the command into a session of its own
 * (`use_pty`), and then does not pass on a signal that `timeout` sends to the whole group.
 * HOME is set because libpq looks there for .pgpass; in a systemd unit root has none either.
 */
export const AS_USER = `as_user() {
  user=$1
  shift
  entry=$(getent passwd "$user") || { echo "understudy: there is no user $user on this host" >&2; return 1; }
  home=$(printf %s "$entry" | cut -d: -f6)
  set -- env HOME="$home" USER="$user" LOGNAME="$user" "$@"
  if [ "$user" = root ]; then
    "$@"
  else
    setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --init-groups "$@"
  fi
}`
