-- Whoever stands before this position begins anew.
update feed
set pruned_to = greatest(feed.pruned_to, $1)
