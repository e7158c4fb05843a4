-- Uses of tokens, merged into what is known of them; one row for each that was stored.
--
-- Only of tokens that exist and name the service as an audience: whoever may check tokens can report what it likes, and
-- must neither fill the table with ids that it made up nor speak of tokens that are not meant for it
-- (test_uses_of_tokens_that_are_not_there_or_not_meant_for_the_service_are_left_out). In order of the key, so that two
-- servers do not wait for each other here. The ids are given a second time as `= any`, for which the planner leaves out the
-- partitions that they do not lie in (test_storing_uses_opens_only_the_partitions_of_those_ids).
with given as (
  select * from unnest(
    $1::uuid [], $2::text [], $3::bigint [], $4::double precision [], $5::text [], $6::text []
  ) as given (
    token_id, service, use_count, used_ago_seconds, address, scopes
  )
),

meant as (
  select
    given.token_id, given.service, given.use_count, given.address, string_to_array(given.scopes, ' ') as scopes,
    greatest(tokens.created_at, now() - make_interval(secs => given.used_ago_seconds)) as last_used_at,
    network(
      set_masklen(
        nullif(given.address, '')::inet, case family(nullif(given.address, '')::inet) when 4 then 24 else 48 end
      )
    )::text as network,
    tokens.idle_seconds is not null as slides,
    tokens.predecessor_id
  from tokens
  inner join given on tokens.id = given.token_id
  where
    tokens.id = any ($1::uuid [])
    and (
      given.service = any (tokens.audiences)
      or (given.service <> 'watchword' and '*' = any (tokens.audiences))
    )
),

-- As they were before: a statement sees nothing of what it writes.
known as (
  select
    token_usage.token_id, array_agg(seen.network) as networks
  from token_usage
  cross join unnest(token_usage.networks) as seen (network)
  where token_usage.token_id = any ($1::uuid [])
  group by token_usage.token_id
),

stored as (
  insert into token_usage as earlier (token_id, service, last_used_at, use_count, address, scopes, networks)
  select
    meant.token_id, meant.service, meant.last_used_at, meant.use_count, meant.address, meant.scopes,
    array_remove(array[meant.network], null)
  from meant
  order by meant.token_id, meant.service
  on conflict (token_id, service) do update
    set
      last_used_at = greatest(earlier.last_used_at, excluded.last_used_at),
      -- Up to about 2**53, so that no sum overflows: it would take with it what others' tokens were used for
      -- (test_counts_that_are_made_up_take_nobody_elses_with_them).
      use_count = least(earlier.use_count, 4503599627370496) + least(excluded.use_count, 4503599627370496),
      address = case
        when excluded.address = '' or (excluded.last_used_at < earlier.last_used_at and earlier.address <> '')
          then earlier.address
        else excluded.address
      end,
      scopes = (
        earlier.scopes
        || array(
          select needed.scope from unnest(excluded.scopes) as needed (scope)
          where needed.scope <> all (earlier.scopes)
        )
      )[1:64],
      -- The latest first; a token that roams forgets those that it has not come from for long.
      networks = (excluded.networks || array_remove(earlier.networks, excluded.networks[1]))[1:16]
)

select
  meant.token_id, meant.service, meant.address, meant.slides, meant.last_used_at,
  case when meant.network <> all (known.networks) then meant.network end as new_network,
  case when known.networks is null then meant.predecessor_id end as heir_of
from meant
left join known on meant.token_id = known.token_id
