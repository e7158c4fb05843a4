-- What is known of where these tokens' predecessors came from is known of them as well, from their first use on: to
-- services a successor is the same caller. Of tokens of which no network was known. One row for each token and service,
-- with the network that is news of it. Rows of other services too, which another server may be writing: should the two
-- wait for each other, PostgreSQL ends one, and it is tried again.
with heirs as (
  select * from unnest($1::uuid [], $2::uuid []) as heirs (token_id, predecessor_id)
),

seen as (
  select heirs.token_id, known.network, min(known.place) as place
  from heirs
  inner join token_usage on heirs.predecessor_id = token_usage.token_id
  cross join unnest(token_usage.networks) with ordinality as known (network, place)
  where token_usage.token_id = any ($2::uuid [])
  group by heirs.token_id, known.network
),

inherited as (
  select seen.token_id, array_agg(seen.network order by seen.place) as networks
  from seen
  group by seen.token_id
)

update token_usage
set
  networks = (
    token_usage.networks
    || array(
      select known.network from unnest(inherited.networks) with ordinality as known (network, place)
      where known.network <> all (token_usage.networks)
      order by known.place
    )
  )[1:16]
from inherited
where token_usage.token_id = inherited.token_id and token_usage.token_id = any ($1::uuid [])
returning
  token_usage.token_id, token_usage.service, token_usage.address,
  case when token_usage.networks[1] <> all (inherited.networks) then token_usage.networks[1] end as new_network
