-- An audit event for each of many tokens that one deed ended.
insert into audit_events (id, action, actor, actor_token_id, address, token_id, details)
select
  given.event_id, 'revoke', $3, $4, $5, given.token_id, $6::jsonb
from unnest($1::uuid [], $2::uuid []) as given (event_id, token_id)
