-- Locks tokens that are about to be changed by name, whatever their state, in order of id as every revocation does.
select
  now() as read_at, coalesce(tokens.shortened, false) as shortened,
  tokens.id, tokens.pepper_version, tokens.digest, tokens.subject, tokens.audiences, tokens.scopes, tokens.grants,
  tokens.created_at, tokens.expires_at, tokens.revoked_at, tokens.revoke_reason, tokens.issued_by, tokens.name,
  tokens.metadata, tokens.kind, tokens.owner, tokens.idle_seconds, tokens.idle_expires_at, tokens.allowed_networks,
  tokens.certificate_sha256, tokens.lineage_id, tokens.predecessor_id, tokens.successor_id, tokens.rotated_at,
  tokens.tied_to, tokens.digest_scheme
from tokens
where tokens.id = any ($1::uuid [])
order by tokens.id
for update
