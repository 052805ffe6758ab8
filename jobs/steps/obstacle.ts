/** One thing that stands in the way, and what to do about it. */
export interface Obstacle {
  detail: string
  remedy: string
}
