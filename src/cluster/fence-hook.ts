/** Somebody else who can cut a host off: a power switch, a cloud’s API. */

export interface FenceRequest {
  cluster: string
  node: string
  host: string
}

/** Answers with a receipt, for the record, once the host is off or cut off. Throws where it is not known to be. */
export type FenceHook = (request: FenceRequest, signal: AbortSignal) => Promise<string>
