/** What Debian's start.conf says where this service stopped a server on demand: no boot and no upgrade starts it again. */
export const HELD_MARK = '# Stopped by Understudy'

export const HELD = `${HELD_MARK}: nothing starts this server by itself until it is started on demand.\nmanual\n`
