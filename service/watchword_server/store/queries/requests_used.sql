-- The tokens for which these callers used these request ids within the last day, in an earlier attempt.
select issue_requests.token_id
from unnest($1::text [], $2::text [], $3::bigint []) as given (caller_subject, request_id, attempt)
inner join issue_requests
  on given.caller_subject = issue_requests.caller_subject and given.request_id = issue_requests.request_id
where
  issue_requests.created_at >= now() - interval '24 hours'
  and (given.attempt = 0 or issue_requests.attempt is null or issue_requests.attempt < given.attempt)
