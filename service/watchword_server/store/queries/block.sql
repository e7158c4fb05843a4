-- Blocks subjects. One that is blocked already keeps who did it first, and why.
insert into blocked_subjects (subject, reason, blocked_by, blocked_by_token_id)
select
  given.subject, given.reason, given.blocked_by, given.blocked_by_token_id
from unnest($1::text [], $2::text [], $3::text [], $4::uuid []) as given (
  subject, reason, blocked_by, blocked_by_token_id
)
on conflict (subject) do nothing
returning blocked_subjects.subject
