-- Audit events, in the transaction of what they record.
insert into audit_events (id, action, actor, actor_token_id, address, token_id, details)
select
  given.id, given.action, given.actor, given.actor_token_id, given.address, given.token_id, given.details::jsonb
from unnest($1::uuid [], $2::text [], $3::text [], $4::uuid [], $5::text [], $6::uuid [], $7::text []) as given (
  id, action, actor, actor_token_id, address, token_id, details
)
