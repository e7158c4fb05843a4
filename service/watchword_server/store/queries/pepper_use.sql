-- How many live tokens were stored with a pepper version, and when the last of them ends. As pepper_needed.sql.
select
  count(*) as live_tokens, max(tokens.expires_at) as last_ends_at
from tokens
where
  tokens.pepper_version = $1
  and tokens.revoked_at is null
  and tokens.expires_at > now()
  and (tokens.idle_expires_at is null or tokens.idle_expires_at > now())
  and tokens.id >= (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
