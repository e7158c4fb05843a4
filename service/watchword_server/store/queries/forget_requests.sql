-- Request ids are kept for a day.
delete from issue_requests
where issue_requests.created_at < now() - interval '24 hours'
