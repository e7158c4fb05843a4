-- Who used these tokens: for each the latest services first, at most 100.
select
  used.token_id, latest.service, latest.address, latest.last_used_at, latest.use_count, latest.scopes
from unnest($1::uuid []) as used (token_id)
cross join lateral (
  select
    token_usage.service, token_usage.address, token_usage.last_used_at, token_usage.use_count, token_usage.scopes
  from token_usage
  where token_usage.token_id = used.token_id
  order by token_usage.last_used_at desc
  limit 100
) as latest
