/**
 * Letting the nodes, the service and the applications through a host's firewall: one shell script for each kind, with the
 * verbs `check` (exit 0: as it should be, 1: not), `apply`, `remove`, and `remains` (exit 0: something of ours is there, 1: nothing). What others put into the firewall stays. SSH is
 * only ever opened, never closed: who else may log in is not ours to decide.
 */
import { quote } from './quote.js'

export type FirewallKind = 'nftables' | 'ufw' | 'firewalld'

export interface Opening {
  port: number
  /** Addresses and networks in CIDR notation. No names: at boot nobody may be there yet to resolve them. */
  from: readonly string[]
}

export interface FirewallRules {
  /** Ours are told from others' by this. */
  cluster: string
  postgres: Opening
  ssh: Opening
  /** Whether nftables closes the PostgreSQL port to everybody else. The other two do so, or not, by their owner's rules. */
  strict: boolean
}

/** What runs on a host. A firewall that only has rules in the kernel counts as nftables. */
export const DETECT = `if command -v firewall-cmd >/dev/null && firewall-cmd --state >/dev/null 2>&1; then echo firewalld
elif command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then echo ufw
elif command -v nft >/dev/null && nft list ruleset 2>/dev/null | grep -v understudy | grep -q 'hook input'; then echo nftables
else echo none; fi`

export const scriptPath = (cluster: string) => `/etc/understudy/firewall-${cluster}`
export const unitPath = (cluster: string) => `/etc/systemd/system/${unitName(cluster)}`
export const unitName = (cluster: string) => `understudy-firewall-${cluster}.service`

/** Puts the rules back after a boot: nftables keeps nothing by itself. */
export const unitText = (cluster: string) => `# Managed by Understudy: cluster ${cluster}, its firewall.
[Unit]
Description=Firewall rules of the PostgreSQL cluster ${cluster}
After=nftables.service
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh ${scriptPath(cluster)} apply

[Install]
WantedBy=multi-user.target
`

/** Sorted lines of port and address: what each script wants to see. */
const wanted = ({
  cluster,
  postgres,
  ssh,
  strict,
}: FirewallRules) => `# Managed by Understudy: cluster ${cluster}, its firewall. What is changed here is overwritten.
set -u
tag=${quote([`understudy ${cluster}`])}
cluster=${quote([cluster])}
strict=${strict ? 'yes' : 'no'}
plain() { for one in "$@"; do echo "$one"; done | sed 's,/32$,,; s,/128$,,' | sort -u; }
postgres_port=${postgres.port}
postgres_from=$(plain ${quote([...postgres.from])})
ssh_port=${ssh.port}
ssh_from=$(plain ${quote([...ssh.from])})
rules() {
  { for a in $postgres_from; do echo "$postgres_port $a"; done; for a in $ssh_from; do echo "$ssh_port $a"; done; } | sort
}
`

/**
 * An accept in one table does not save a packet from a drop in another: so the chains of others that see incoming packets
 * get our rules at their head. Where strangers are to be kept out, a table of our own does it. All in one transaction:
 * what fails changes nothing, and nobody is shut out in between.
 */
const nftables = `table="understudy_$(echo "$cluster" | tr - _)"
# A rule an address: in one set, an address and a network around it would be in conflict.
accepts() {
  rules | while read -r port from; do
    case $from in *:*) family=ip6 ;; *) family=ip ;; esac
    echo "$family saddr $from tcp dport $port accept"
  done
}
sum() { rules | cksum | cut -d' ' -f1; }
own() {
  echo "table inet $table {"
  echo "  comment \\"$(sum)\\""
  echo "  chain input {"
  echo "    type filter hook input priority -5; policy accept;"
  echo "    iif lo accept"
  accepts | sed 's/^/    /'
  echo "    tcp dport $postgres_port drop"
  echo "  }"
  echo "}"
}
foreign() {
  nft list ruleset 2>/dev/null | awk '
    /^table / { family = $2; name = $3 }
    /^\\tchain / { chain = $2 }
    /type filter hook input/ && name !~ /^understudy_/ { print family, name, chain }'
}
fits() { case "$1 $2" in "ip ip6"* | "ip6 ip "*) return 1 ;; esac; }
change() {
  ! nft list table inet "$table" >/dev/null 2>&1 || echo "delete table inet $table"
  [ "$1$strict" != applyyes ] || own
  foreign | while read -r family name chain; do
    nft -a list chain "$family" "$name" "$chain" | awk -v tag="\\"$tag\\"" 'index($0, tag) { print $NF }' |
      while read -r handle; do echo "delete rule $family $name $chain handle $handle"; done
    [ "$1" = apply ] || continue
    accepts | while read -r rule; do
      ! fits "$family" "$rule" || echo "insert rule $family $name $chain $rule comment \\"$tag\\""
    done
  done
}
case $1 in
check)
  if [ "$strict" = yes ]; then nft list table inet "$table" 2>/dev/null | grep -q "comment \\"$(sum)\\"" || exit 1
  else ! nft list table inet "$table" >/dev/null 2>&1 || exit 1; fi
  foreign | while read -r family name chain; do
    want=$(accepts | while read -r rule; do ! fits "$family" "$rule" || echo "$rule"; done | sort)
    have=$(nft list chain "$family" "$name" "$chain" | grep -F "\\"$tag\\"" | sed 's/^[[:space:]]*//; s/ comment .*//' | sort)
    [ "$want" = "$have" ] || exit 1
  done
  ;;
apply | remove) change "$1" | nft -f - ;;
remains) nft list table inet "$table" >/dev/null 2>&1 || nft list ruleset | grep -qF "\\"$tag\\"" ;;
esac
`

/**
 * ufw keeps comments with its rules, and says its rules as the commands that make them. A network of all addresses it does not
 * take; `any` it does, which is both families, and says the rule without its source then.
 */
const ufw = `ours() { ufw show added | sed -n "s/^\\(ufw .*\\) comment '$tag'\\$/\\1/p"; }
told() { rules | sed 's, [^ ]*/0$, any,' | sort -u; }
as_rule() {
  sed -n -e 's/^ufw allow from \\([^ ]*\\) to any port \\([0-9]*\\) proto tcp$/\\2 \\1/p' -e 's,^ufw allow \\([0-9]*\\)/tcp$,\\1 any,p'
}
have() { ours | as_rule | sort; }
drop() { ours | while read -r _ rule; do ufw delete $rule >/dev/null || exit 1; done; }
case $1 in
check) [ "$(have)" = "$(told)" ] && [ "$(ours | wc -l)" -eq "$(told | wc -l)" ] ;;
apply)
  told | while read -r port from; do ufw allow proto tcp from "$from" to any port "$port" comment "$tag" || exit 1; done || exit 1
  ours | while read -r _ rule; do
    echo "ufw $rule" | as_rule | {
      read -r line
      told | grep -qxF "$line"
    } || ufw delete $rule || exit 1
  done
  ;;
remains) [ -n "$(ours)" ] ;;
remove) drop ;;
esac
`

/** Rules have no comments in firewalld: ours name services of our own. */
const firewalld = `zone=$(firewall-cmd --get-default-zone)
service_of() { [ "$1" = "$postgres_port" ] && echo "understudy-$cluster" || echo "understudy-$cluster-ssh"; }
rich() {
  rules | while read -r port from; do
    case $from in *:*) family=ipv6 ;; *) family=ipv4 ;; esac
    echo "rule family=\\"$family\\" source address=\\"$from\\" service name=\\"$(service_of "$port")\\" accept"
  done | sort
}
have() { firewall-cmd \${1-} --zone="$zone" --list-rich-rules | grep -F "service name=\\"understudy-$cluster" | sort; }
port_of() { firewall-cmd --permanent --service="$1" --get-ports 2>/dev/null; }
case $1 in
check)
  [ "$(port_of "understudy-$cluster")" = "$postgres_port/tcp" ] && [ "$(port_of "understudy-$cluster-ssh")" = "$ssh_port/tcp" ] &&
    [ "$(have)" = "$(rich)" ] && [ "$(have --permanent)" = "$(rich)" ]
  ;;
apply)
  new=
  for pair in "understudy-$cluster $postgres_port" "understudy-$cluster-ssh $ssh_port"; do
    set -- $pair
    firewall-cmd --permanent --get-services | tr ' ' '\\n' | grep -qxF "$1" || { new=yes; firewall-cmd --permanent --new-service="$1" || exit 1; }
    for old in $(port_of "$1"); do [ "$old" = "$2/tcp" ] || { new=yes; firewall-cmd --permanent --service="$1" --remove-port="$old"; }; done
    firewall-cmd --permanent --service="$1" --add-port="$2/tcp" || exit 1
  done
  # What somebody set for the time being only is lost by a reload: once is enough, for services that are new.
  [ -z "$new" ] || firewall-cmd --reload || exit 1
  for where in "" --permanent; do
    have $where | while read -r rule; do rich | grep -qxF "$rule" || firewall-cmd $where --zone="$zone" --remove-rich-rule="$rule"; done
    rich | while read -r rule; do have $where | grep -qxF "$rule" || firewall-cmd $where --zone="$zone" --add-rich-rule="$rule" || exit 1; done || exit 1
  done
  ;;
remains) [ -n "$(have --permanent)" ] || firewall-cmd --permanent --get-services | tr ' ' '\\n' | grep -qxF "understudy-$cluster" ;;
remove)
  have --permanent | while read -r rule; do firewall-cmd --permanent --zone="$zone" --remove-rich-rule="$rule"; done
  for name in "understudy-$cluster" "understudy-$cluster-ssh"; do firewall-cmd --permanent --delete-service="$name" 2>/dev/null; done
  firewall-cmd --reload
  ;;
esac
`

const BODIES: Record<FirewallKind, string> = { nftables, ufw, firewalld }

export const firewallScript = (kind: FirewallKind, rules: FirewallRules): string => `${wanted(rules)}${BODIES[kind]}`
