-- About how many live tokens hold each scope. A full read of the live tokens, so it runs seldom, and only if nobody
-- else counted within the last quarter of an hour.
with counted as (
  select
    held.name, count(*) as live_tokens
  from tokens
  cross join unnest(tokens.scopes) as held (name)
  where tokens.revoked_at is null and tokens.expires_at > now()
  group by held.name
)

update scopes
set live_tokens = coalesce(counted.live_tokens, 0), counted_at = now()
from scopes as known
left join counted on known.name = counted.name
where
  scopes.name = known.name
  and not exists (select 1 from scopes as lately where lately.counted_at > now() - interval '15 minutes')
