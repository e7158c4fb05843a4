-- Those of these subjects that are blocked. Whoever blocks one of them, or any, waits for this transaction.
select blocked_subjects.subject
from blocked_subjects
where blocked_subjects.subject = any ($1::text [])
for key share
