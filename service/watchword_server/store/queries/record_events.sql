-- Audit events, in the transaction of what they record. One that is there already was sent again by whoever did not hear
-- that it had arrived.
insert into audit_events (id, action, actor, actor_token_id, address, token_id, details, outcome)
select
  given.id, given.action, given.actor, given.actor_token_id, given.address, given.token_id, given.details::jsonb,
  given.outcome
from unnest(
  $1::uuid [], $2::text [], $3::text [], $4::uuid [], $5::text [], $6::uuid [], $7::text [], $8::text []
) as given (
  id, action, actor, actor_token_id, address, token_id, details, outcome
)
on conflict (id) do nothing
