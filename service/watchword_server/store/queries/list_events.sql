-- One page of audit events, newest first. Conditions that do not apply vanish from a custom plan.
select
  audit_events.id, audit_events.occurred_at, audit_events.action, audit_events.actor, audit_events.actor_token_id,
  audit_events.address, audit_events.token_id, audit_events.details, audit_events.outcome
from audit_events
where
  ($1::uuid is null or audit_events.id < $1)
  and ($2::text = '' or audit_events.actor = $2)
  and ($3::uuid is null or audit_events.token_id = $3)
  and ($4::text = '' or audit_events.action = $4)
  and ($5::timestamptz is null or audit_events.occurred_at >= $5)
  and ($6::uuid is null or audit_events.id >= $6)
  and (not $7::boolean or audit_events.outcome is not null)
order by audit_events.id desc
limit $8
