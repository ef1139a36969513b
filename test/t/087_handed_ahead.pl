
# Tasks of the next moments that are with a worker already: each has its own time, what changes is
# heeded, and what turns out to wait behind a long run goes to others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'ahead',
	conf => q{
taskshed.max_workers = 2
taskshed.worker_idle_timeout = '1h'
log_min_messages = debug2
});

query(
	q{
	CREATE TABLE seen (n int, task text, due timestamptz, at timestamptz DEFAULT clock_timestamp());
	CREATE FUNCTION look(n int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO public.seen SELECT n, task_id, run_at FROM taskshed.current_task() $$;
	CREATE FUNCTION hold(n int) RETURNS void LANGUAGE sql AS $$
		SELECT pg_advisory_xact_lock(1);
		INSERT INTO public.seen SELECT n, task_id, run_at FROM taskshed.current_task() $$;
	CREATE FUNCTION hurry(n int, task text) RETURNS void LANGUAGE sql AS $$
		SELECT taskshed.update_execution_time(task, now());
		INSERT INTO public.seen SELECT n, task_id, run_at FROM taskshed.current_task() $$}
);

# Add tasks that are due one after the other, so many us apart.
sub add_spread
{
	my ($tasks, $apart) = @_;

	query(
		qq{TRUNCATE seen;
		SELECT taskshed.add_tasks(jsonb_agg(task || jsonb_build_object('run_at',
			now() + interval '0.1 s' + n * interval '1 us' * $apart, 'kwargs', coalesce(task->'kwargs', '{}') || jsonb_build_object('n', n)) ORDER BY n))
		FROM ($tasks) AS t (n, task)});
	return;
}

# Those in which not each task has had its effect once.
my @wrong;

sub check_once
{
	my ($n) = @_;
	my $is = query('SELECT count(*), count(DISTINCT n) FROM seen');

	push @wrong, $is if $is ne "$n|$n";
	return;
}

sub id_of
{
	my ($task_id) = @_;

	return query("SELECT id FROM _taskshed.task WHERE task_id = '$task_id'");
}

sub times_handed_out
{
	my ($id) = @_;

	return count_in_log($node, qr/scheduler hands task $id to/);
}

sub rounds
{
	return count_in_log($node, qr/scheduler waits until/);
}

# ------------------------------------------------------------------------
# Each has its time

add_spread(
	q{SELECT n, jsonb_build_object('callback', 'look') FROM generate_series(1, 100) AS n},
	1000);
await_drained($node);
my ($spared, $early) = (0, 0);
for my $try (1 .. 100)
{
	my $rounds = rounds();

	add_spread(
		q{SELECT n, jsonb_build_object('callback', 'look') FROM generate_series(1, 200) AS n},
		2000);
	await_drained($node);
	check_once(200);
	$early  = query('SELECT count(*) FROM seen WHERE at < due');
	$spared = 200 - (rounds() - $rounds);
	last if $spared > 50 || $early > 0;
}
is($early, 0, 'none before its time');
cmp_ok($spared, '>', 50, 'a round of the scheduler hands out several');

# ------------------------------------------------------------------------
# What is behind a run that turns out to be long does not wait for it

my $lock  = session($node);
my $taken = 0;
for my $try (1 .. 100)
{
	# all of them are within the time for which tasks are handed out
	$lock->query('SELECT pg_advisory_lock(1)');
	add_spread(
		q{SELECT n, jsonb_build_object('task_id', 't' || n, 'callback', CASE n WHEN 3 THEN 'hold' ELSE 'look' END) FROM generate_series(1, 8) AS n},
		1000);
	my $id = id_of('t8');

	await($node, 'SELECT count(*) = 7 FROM seen', 'all but the long one run')
	  or last;
	$taken = times_handed_out($id);
	$lock->query('SELECT pg_advisory_unlock(1)');
	await_drained($node);
	check_once(8);
	last if $taken > 1;

	# what was long is forgotten
	add_spread(
		q{SELECT n, jsonb_build_object('callback', 'look') FROM generate_series(1, 100) AS n},
		1000);
	await_drained($node);
}
cmp_ok($taken, '>', 1, 'what was behind it was taken back');
$lock->quit;

# ------------------------------------------------------------------------
# One that is moved to an earlier time runs then

my $sooner = 0;
for my $try (1 .. 300)
{
	add_spread(
		q{SELECT n, jsonb_build_object('callback', 'look') FROM generate_series(1, 100) AS n},
		1000);
	await_drained($node);
	add_spread(
		q{SELECT n, jsonb_build_object('task_id', 't' || n) ||
			CASE n WHEN 1 THEN '{"callback": "hurry", "kwargs": {"task": "t9"}}' ELSE '{"callback": "look"}' END::jsonb FROM generate_series(1, 9) AS n},
		1000);
	my $id = query(q{SELECT id FROM _taskshed.task WHERE task_id = 't9'});

	await_drained($node);
	check_once(9);

	# It was with a worker, and not taken back only because the first was a long run.
	next
	  if times_handed_out($id) < 2
	  || query(
		q{SELECT finished_at - started_at > interval '1 ms' FROM taskshed.runs WHERE task_id = 't1' ORDER BY finished_at DESC LIMIT 1}
	  ) eq 't';
	$sooner = query(
		q{SELECT count(*) FROM seen WHERE task = 't9' AND at < (SELECT due FROM seen WHERE task = 't8')}
	);
	last if $sooner > 0;
}
is($sooner, 1, 'one that is moved to an earlier time runs then');

is(join(' ', @wrong), '', 'each task has had its effect once');
no_crash($node);
$node->stop;
done_testing();
