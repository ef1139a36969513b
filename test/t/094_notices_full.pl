
# A notify queue that is full keeps nobody waiting: a session that listens and stays in its transaction
# has it filled to 95 percent; tasks run on, their notices are left out, and the view status says so.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $full =
  'a run has ended without its notice, since those of other sessions keep theirs waiting';

# (The smallest queue that there can be; before 17 it has eight gigabytes.)
my $node = taskshed_node('full');
if ($node->safe_psql('postgres', 'SHOW server_version_num') < 170000)
{
	plan skip_all => 'the size of the queue cannot be set before version 17';
}
$node->append_conf('postgresql.conf', 'max_notify_queue_pages = 64');
$node->restart;

query(
	q{
	CREATE ROLE app LOGIN;
	GRANT CREATE ON SCHEMA public TO app;
	SET ROLE app;
	CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$ SELECT 'done' $$;
	CREATE FUNCTION fail() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'for good'; END $$;
	CREATE TABLE alerts (task_id text);
	CREATE FUNCTION alert(task_id text) RETURNS void LANGUAGE sql AS 'INSERT INTO public.alerts VALUES (task_id)'}
);

# What is listened for in a transaction that stays open is kept.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN jobs');
$listener->query_safe('BEGIN; SELECT 1');
my $usage = 0;
for (my $n = 0; $usage < 0.95 && $n < 1000; $n++)
{
	query(
		q{SELECT pg_notify('jobs', repeat('x', 7000) || clock_timestamp())});
	$usage = query('SELECT pg_notification_queue_usage()');
}
cmp_ok($usage, '>=', 0.95, 'the queue is full');

app(q{add_task('work', task_id => 'works', notify => 'jobs')});
app(q{add_task('fail', task_id => 'fails', notify => 'jobs', on_failure => 'alert')}
);
await_no_task($node, 'works');
await_state($node, 'fails', 'failed');
await(
	$node,
	q{SELECT count(*) = 1 FROM alerts WHERE task_id = 'fails'},
	'the alert comes');
is(query(q{SELECT message FROM taskshed.status}),
	$full, 'status says that notices are left out');
is(query('SELECT pg_notification_queue_usage() < 1'),
	't', 'and the queue has room for others');

# When it is read, notices come again.
$listener->query_safe('COMMIT');
await(
	$node,
	'SELECT pg_notification_queue_usage() < 0.9',
	'the queue is emptied');
my $heard = $node->background_psql('postgres');
$heard->query_safe('LISTEN jobs');
app(q{add_task('work', task_id => 'again', notify => 'jobs')});
await_no_task($node, 'again');
await(
	$node,
	q{SELECT message IS NULL FROM taskshed.status},
	'status says no more');
like($heard->query('SELECT 1'), qr/"task_id": "again"/, 'a notice is heard');
$heard->quit;
$listener->quit;

done_testing();
