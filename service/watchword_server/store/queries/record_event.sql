-- One audit event, in the transaction of what it records.
insert into audit_events (id, action, actor, actor_token_id, address, token_id, details)
values ($1, $2, $3, $4, $5, $6, $7::jsonb)
