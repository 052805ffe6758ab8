/** Whether the service opens a host's firewall for the cluster. */
import { type Static, Type } from 'typebox'

export const Firewall = Type.Enum(['auto', 'off', 'nftables', 'ufw', 'firewalld'], {
  title: 'Firewall',
  default: 'auto',
  description:
    'auto: whichever of firewalld, ufw and nftables runs on the host is told to let in who needs to come in; where none runs, nothing is done. ' +
    'A name: that one, and a host where it does not run is refused (nftables is switched on). off: the firewall is somebody else’s business.',
})
export type Firewall = Static<typeof Firewall>
