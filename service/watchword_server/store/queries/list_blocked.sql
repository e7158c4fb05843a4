-- One page of the blocked subjects, in order of their names.
select
  blocked_subjects.subject, blocked_subjects.reason, blocked_subjects.blocked_by, blocked_subjects.blocked_at
from blocked_subjects
where blocked_subjects.subject > $1
order by blocked_subjects.subject
limit $2
