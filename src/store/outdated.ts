/**
 * Whether an operation that has ended may still be run again. What it was asked for was meant for the cluster as it was
 * then: not for another one that has its name now, and not over what somebody has changed since.
 */

/** Lua. Keeps with an operation which version the cluster's record has now. All are Lua expressions. */
export const rememberVersion = (operation: string, clusters: string, cluster: string) => `
do
  local record = redis.call('hget', ${clusters}, ${cluster})
  if record then redis.call('hset', ${operation}, 'clusterVersion', cjson.decode(record).version) end
end`

/**
 * Lua. Returns from the script where an operation is outdated: `{'replaced'}`, or `{'overtaken', id}` with the id of a later
 * operation where that is known. Nothing is said of a cluster that is not there: the worker does. One that was asked for by
 * an older version of this service has no `clusterCreatedAt`: no operation is older than its cluster. A proof that data
 * are replicated changes nothing, and overtakes nobody. All are Lua expressions.
 */
export const returnIfOutdated = (
  operation: string,
  names: { id: string; clusters: string; cluster: string; operationsOf: string; keyPrefix: string },
) => `
do
  local text = redis.call('hget', ${names.clusters}, ${names.cluster})
  if text then
    local record = cjson.decode(text)
    local known = redis.call('hmget', ${operation}, 'clusterCreatedAt', 'clusterVersion', 'base')
    local replaced
    if known[1] then replaced = record.createdAt ~= known[1] else replaced = (record.createdAt or '') > cjson.decode(known[3]).createdAt end
    if replaced then return {'replaced'} end
    for _, later in ipairs(redis.call('zrange', ${names.operationsOf}, '(' .. ${names.id}, '+', 'bylex')) do
      local other = redis.call('hmget', ${names.keyPrefix} .. later, 'state', 'base')
      if other[1] == 'succeeded' and cjson.decode(other[2]).type ~= 'verify-replication' then return {'overtaken', later} end
    end
    if known[2] and tonumber(known[2]) ~= record.version then return {'overtaken', ''} end
  end
end`
