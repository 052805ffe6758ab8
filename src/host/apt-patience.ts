/** What every command of apt here has in common: it waits for others, and not for ever for the network. */
import { WAITING } from './apt-errors.js'

/** How long another package manager is waited for: unattended-upgrades may be at work. */
export const LOCK_WAIT_SECONDS = 300

/** A source that does not answer must not take all the time there is. */
export const NETWORK = [
  '-o',
  'Acquire::Retries=2',
  '-o',
  'Acquire::http::Timeout=30',
  '-o',
  'Acquire::https::Timeout=30',
] as const

/**
 * Repeats a command while another program holds one of apt's locks. apt's own DPkg::Lock::Timeout knows the lock of dpkg
 * only, not those of the lists and of the downloads (apt 2.2, 2.6 and 3.0), and 2.2 does not say then who holds it.
 */
export const PATIENTLY = `
wait=$1
shift
said=$(mktemp -d) || exit 1
trap 'rm -rf -- "$said"' EXIT
patiently() {
  deadline=$(($(date +%s) + wait))
  while :; do
    { "$@" 2>&1; echo "$?" >"$said/code"; } | tee "$said/output"
    patient=$(cat "$said/code")
    if [ "$patient" -eq 0 ] || ! grep -Eq 'Could not get lock|lock was locked by' "$said/output"; then
      return "$patient"
    fi
    [ "$(date +%s)" -lt "$deadline" ] || return "$patient"
    echo "${WAITING}, $wait s at most"
    sleep 2
  done
}`
