-- Whether any live token was stored with a pepper version. Asked for one version at a time: only then is it known whether
-- the index helps. No token outlives its id, so that partitions that are past are left out.
select exists (
  select 1 from tokens
  where
    tokens.pepper_version = $1
    and tokens.revoked_at is null
    and tokens.expires_at > now()
    and (tokens.idle_expires_at is null or tokens.idle_expires_at > now())
    and tokens.id >= (lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
)
