import t from 'tap'
import type { Checks } from '../../src/cluster/checks.js'
import type { Operation } from '../../src/operations/operation.js'
import { ended, startLabTest } from '../fixtures/lab.js'
import { eventually } from '../fixtures/redis.js'

const NFT = `flush ruleset
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
    tcp dport 22 accept
    icmp type echo-request accept
  }
}
`

t.test(
  'each kind of firewall lets the cluster in and strangers not; the postgres user may do four things as root',
  {
    timeout: 800_000,
  },
  async t => {
    const { lab, node, addHosts, start } = await startLabTest(t, 'hostsec', { postgres: true })
    const hosts = await addHosts(['pg1', 'pg2', 'pg3', 'stranger'])
    const members = hosts.slice(0, 3)
    const service = await start()
    const sh = (host: string, text: string) => lab.exec(host, ['sh', '-euc', text])
    const install = (host: string, packages: string) =>
      sh(
        host,
        `export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; apt-get -qq -y install --no-install-recommends ${packages} >/dev/null`,
      )
    await Promise.all([
      install('pg1', 'nftables').then(() =>
        sh(
          'pg1',
          `cat >/etc/nftables.conf <<'END'\n${NFT}END\nsystemctl enable --now nftables; nft -f /etc/nftables.conf`,
        ),
      ),
      install('pg2', 'ufw').then(() => sh('pg2', 'ufw allow 22/tcp; ufw --force enable')),
      install('pg3', 'firewalld netbase').then(() =>
        sh('pg3', 'systemctl enable --now firewalld; firewall-cmd --state'),
      ),
    ])
    const cluster = { name: 'orders', postgresVersion: 15, nodes: members.map(node), bootstrap: true }
    const build = async () => {
      const { body } = await service.call<Operation>('POST', '/v1/clusters', { body: cluster })
      return ended(() => service, body.id, 400_000)
    }
    const address = (name: string) => hosts.find(host => host.name === name)?.address ?? ''
    /** 0: open. 1: refused. 124: nobody answers. */
    const reach = async (from: string, to: string) =>
      (await lab.exec(from, ['timeout', '2', 'bash', '-c', `exec 3<>/dev/tcp/${address(to)}/5432`], { reject: false }))
        .exitCode

    await t.test('firewall: nftables, ufw and firewalld each let the nodes and the service in', async t => {
      const operation = await build()
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      for (const [name, kind] of [
        ['pg1', 'nftables'],
        ['pg2', 'ufw'],
        ['pg3', 'firewalld'],
      ] as const) {
        const step = operation.steps.find(({ id }) => id === `${name}/firewall`)
        t.match(step?.note, new RegExp(`^${kind} lets`))
        for (const other of ['pg1', 'pg2', 'pg3'])
          if (other !== name) t.equal(await reach(other, name), 0, `${other} reaches ${name}`)
        t.not(await reach('stranger', name), 0, `a stranger does not reach ${name} (${kind})`)
      }
    })

    await t.test('sudo: the exact commands, and nothing else', async t => {
      const sudo = async (...argv: string[]) =>
        (await lab.exec('pg2', ['sudo', '-u', 'postgres', 'sudo', '-n', ...argv], { reject: false })).exitCode
      t.equal(await sudo('/usr/bin/systemctl', 'reload', 'postgresql@15-main.service'), 0)
      t.not(await sudo('/usr/bin/systemctl', 'stop', 'ssh.service'), 0)
      t.not(await sudo('/usr/bin/systemctl', 'reload', 'postgresql@15-main.service', 'ssh.service'), 0)
      t.not(await sudo('true'), 0)
      t.match((await lab.exec('pg2', ['visudo', '-c'])).stdout, /understudy-orders: parsed OK/)
      const { body } = await service.call<Checks>('GET', '/v1/clusters/orders/checks')
      const commands = ['start', 'stop', 'restart', 'reload'].map(
        verb => `postgres may run /usr/bin/systemctl ${verb} postgresql@15-main.service`,
      )
      t.same(
        body.items
          .filter(({ kind }) => kind === 'sudo')
          .map(({ to, verdict, detail }) => `${to} ${verdict}: ${detail}`)
          .sort(),
        members.flatMap(({ name }) => commands.map(command => `${name} ok: ${command}`)).sort(),
        'each of the four was tried on each node',
      )
      await lab.exec('pg2', ['mv', '/etc/sudoers.d/understudy-orders', '/root/'])
      const without = (await service.call<Checks>('GET', '/v1/clusters/orders/checks')).body
      await lab.exec('pg2', ['mv', '/root/understudy-orders', '/etc/sudoers.d/'])
      t.equal(
        without.items.filter(({ kind, to, verdict }) => kind === 'sudo' && to === 'pg2' && verdict === 'warning')
          .length,
        4,
        'and without the file each of them is told of',
      )
    })

    await t.test('once more changes nothing; what somebody took out is put back', async t => {
      const again = await build()
      t.equal(again.result?.changedSteps, 0, JSON.stringify(again.steps.filter(({ state }) => state === 'changed')))
      await sh('pg1', 'nft -f /etc/nftables.conf')
      await sh('pg2', `ufw delete allow proto tcp from ${address('pg1')} to any port 5432`)
      await sh(
        'pg3',
        'rule=$(firewall-cmd --list-rich-rules | head -n 1); firewall-cmd --permanent --remove-rich-rule="$rule"; firewall-cmd --remove-rich-rule="$rule"',
      )
      const mended = await build()
      t.equal(mended.state, 'succeeded', JSON.stringify(mended.error))
      t.same(
        mended.steps.filter(({ state }) => state === 'changed').map(({ id }) => id),
        ['pg1/firewall', 'pg2/firewall', 'pg3/firewall'],
      )
    })

    await t.test('an application that may be anywhere: ufw takes all addresses too', async t => {
      const grant = async (access: object[]) => {
        const { body } = await service.call<Operation>('PUT', '/v1/clusters/orders/access', { body: { access } })
        return ended(() => service, body.id)
      }
      const anywhere = [{ address: '0.0.0.0/0', databases: ['orders'], users: ['app'] }]
      const opened = await grant(anywhere)
      t.equal(opened.state, 'succeeded', JSON.stringify(opened.error))
      t.match(opened.steps.find(({ id }) => id === 'pg2/firewall')?.state, 'changed')
      for (const name of ['pg1', 'pg2', 'pg3']) t.equal(await reach('stranger', name), 0, name)
      t.equal((await grant(anywhere)).result?.changedSteps, 0, 'seen as it is')
      t.equal((await grant([])).state, 'succeeded')
      t.not(await reach('stranger', 'pg2'), 0, 'and closed again')
    })

    await t.test('the rules are there again after a boot', async t => {
      await lab.reboot('pg1')
      await eventually(async () => ((await reach('pg2', 'pg1')) === 0 ? true : undefined), 60_000)
      t.not(await reach('stranger', 'pg1'), 0)
    })

    await t.test('a cluster that is destroyed leaves no rule and no file', async t => {
      const { status, body } = await service.call<Operation>(
        'DELETE',
        '/v1/clusters/orders?destroy=true&confirm=orders',
      )
      t.equal(status, 202, JSON.stringify(body))
      const operation = await ended(() => service, body.id)
      t.equal(operation.state, 'succeeded', JSON.stringify(operation.error))
      const rules = {
        pg1: 'nft list ruleset; ls /etc/understudy /etc/systemd/system',
        pg2: 'ufw show added',
        pg3: 'firewall-cmd --permanent --list-all; firewall-cmd --permanent --get-services',
      }
      for (const [name, command] of Object.entries(rules)) {
        const { stdout } = await lab.exec(name, ['sh', '-c', `${command}; ls /etc/sudoers.d`], { reject: false })
        t.notMatch(stdout, /understudy/, name)
      }
    })
  },
)
