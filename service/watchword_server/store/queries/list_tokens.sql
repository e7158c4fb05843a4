-- One page of tokens, in order of id.
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
  and ($4::boolean or (tokens.revoked_at is null and tokens.expires_at > now()))
order by tokens.id
limit $5
