-- The token for which this caller used this request id.
select issue_requests.token_id
from issue_requests
where issue_requests.caller_subject = $1 and issue_requests.request_id = $2
