-- Lets tokens be issued for a subject again.
delete from blocked_subjects
where blocked_subjects.subject = $1
returning blocked_subjects.subject
