-- One page of tokens, in order of id. Whether one was used is an anti join, which the planner does for a page or for all,
-- whichever is cheaper; as one side of an `or` it would be asked for each token by itself, which takes eight times as
-- long where few are unused. With $8 null nothing is used, and nothing is read.
select
  now() as read_at,
  tokens.id, tokens.pepper_version, tokens.digest, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants,
  tokens.created_at, tokens.expires_at, tokens.revoked_at, tokens.revoke_reason, tokens.issued_by, tokens.name,
  tokens.metadata, tokens.kind, tokens.owner, tokens.idle_seconds, tokens.idle_expires_at, tokens.allowed_networks,
  tokens.certificate_sha256, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.rotated_at,
  tokens.tied_to, tokens.digest_scheme
from tokens
where
  ($1::uuid is null or tokens.id > $1)
  and ($2::text = '' or tokens.subject = $2)
  and ($3::uuid is null or tokens.issued_by = $3)
  and (
    $4::boolean
    or (
      tokens.revoked_at is null
      and tokens.expires_at > now()
      and (tokens.idle_expires_at is null or tokens.idle_expires_at > now())
    )
  )
  and ($5::text = '' or tokens.owner = $5)
  and ($6::smallint is null or coalesce(tokens.kind, 0) = $6)
  and ($7::interval is null or least(tokens.expires_at, tokens.idle_expires_at) <= now() + $7)
  and ($8::interval is null or tokens.created_at <= now() - $8)
  and not exists (
    select from token_usage
    where token_usage.token_id = tokens.id and token_usage.last_used_at > now() - $8::interval
  )
order by tokens.id
limit $9
