-- Tokens by id, with the position and the clock they were read at. Always at least one row, so that the position comes
-- even when no token does. `= any` and not a join through unnest: under a custom plan only the partitions that the ids
-- lie in are opened (test_hot_query_prunes_partitions). The clock comes in seconds, since it comes with each row: the
-- driver decodes a number in no time, and a timestamp in a fifth of what it takes for all the rest.
select
  feed.epoch as feed_epoch, feed.position as feed_position, date_part('epoch', now()) as read_at,
  tokens.id, tokens.pepper_version, tokens.digest, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants,
  tokens.created_at, tokens.expires_at, tokens.revoked_at, tokens.revoke_reason, tokens.issued_by, tokens.name,
  tokens.metadata, tokens.kind, tokens.owner, tokens.idle_seconds, tokens.idle_expires_at, tokens.allowed_networks,
  tokens.certificate_sha256, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.rotated_at,
  tokens.tied_to, tokens.digest_scheme
from feed
left join tokens on tokens.id = any ($1::uuid [])
