-- As read_many.sql, for at most two ids. Under a generic plan its partitions are found while it runs, which saves the
-- planning: half of what a lone check costs the database (test_hot_query_prunes_partitions).
select
  feed.epoch as feed_epoch, feed.position as feed_position, date_part('epoch', now()) as read_at,
  tokens.id, tokens.pepper_version, tokens.digest, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants,
  tokens.created_at, tokens.expires_at, tokens.revoked_at, tokens.revoke_reason, tokens.issued_by, tokens.name,
  tokens.metadata, tokens.kind, tokens.owner, tokens.idle_seconds, tokens.idle_expires_at, tokens.allowed_networks,
  tokens.certificate_sha256, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.rotated_at,
  tokens.tied_to, tokens.digest_scheme
from feed
left join tokens on (tokens.id = $1 or tokens.id = $2)
