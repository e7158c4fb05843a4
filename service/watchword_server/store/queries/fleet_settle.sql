-- One maximum lease has passed in this epoch.
update feed
set epoch_settled = true
where feed.epoch = $1 and not feed.epoch_settled
returning feed.epoch
