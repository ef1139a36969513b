
# One bad task harms no other: callbacks that raise, are gone, get arguments
# that do not fit, fail at COMMIT, kill their process or have lost their owner.
# What has failed stays where it can be seen and sent round again, and the log
# has one line of it that does not tell what the arguments were.
#
# Quick: promise 7

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'bad_callbacks', conf => q{
taskshed.max_workers = 3
log_parameter_max_length_on_error = -1
});
my $secret = 'Xyzzy';

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE other LOGIN;
CREATE TABLE t (n integer);
GRANT ALL ON t TO PUBLIC;

CREATE FUNCTION raises(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.t VALUES (1);
	RAISE EXCEPTION 'no luck today' USING ERRCODE = 'TS001', DETAIL = 'a detail', HINT = 'a hint';
END $$;
CREATE FUNCTION lines(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION E'one line\nand another';
END $$;
CREATE FUNCTION divides(secret text) RETURNS integer LANGUAGE sql AS $$ SELECT length(secret) / 0 $$;
CREATE FUNCTION goes(secret text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION renames(secret text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION takes_a_number(n integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION recurses(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.recurses(secret);
END $$;
CREATE FUNCTION cancels(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_cancel_backend(pg_backend_pid());
	PERFORM pg_sleep(1000);
END $$;
CREATE FUNCTION terminates(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.t VALUES (2);
	PERFORM pg_terminate_backend(pg_backend_pid());
	PERFORM pg_sleep(1000);
END $$;
CREATE FUNCTION ends(secret text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	COMMIT;
END $$;

-- Fails when the transaction commits.
CREATE TABLE parent (n integer PRIMARY KEY);
CREATE TABLE child (n integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
GRANT ALL ON parent, child TO PUBLIC;
CREATE FUNCTION orphans(secret text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.child VALUES (1) $$;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'too late' USING ERRCODE = 'TS002';
END $$;
CREATE TABLE later (n integer);
GRANT ALL ON later TO PUBLIC;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION late();
CREATE FUNCTION is_late(secret text) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.later VALUES (1) $$;
});

my @bad = (
	[ raises         => 'TS001', 'no luck today' ],
	[ lines          => 'P0001', "one line\nand another" ],
	[ divides        => '22012', 'division by zero' ],
	[ goes           => '42883', undef ],
	[ renames        => '42883', undef ],
	[ takes_a_number => '22P02', undef, 'n' ],
	[ recurses       => '54001', 'stack depth limit exceeded' ],
	[ cancels        => '57014', 'canceling statement due to user request' ],
	[ ends           => '2D000', 'invalid transaction termination' ],
	[ orphans        => '23503', undef ],
	[ is_late        => 'TS002', 'too late' ]);

# Each of them once and recurring, and some good ones around it.
my $good = 0;

sub beside
{
	my ($role) = @_;

	$node->safe_psql('postgres',
		"SET ROLE $role; SELECT count(taskshed.add_task('note', kwargs => '{\"what\": \"good\"}')) FROM generate_series(1, 20)"
	);
	$good += 20;
	return;
}

my $log = -s $node->logfile;
$node->safe_psql(
	'postgres',
	join(
		"\n",
		map {
			my ($callback, $key) = ($_->[0], $_->[3] || 'secret');
			qq{SET ROLE app;
	SELECT taskshed.add_task('$callback', now() + interval '1 day', '{"$key": "$secret"}',
		task_id => '$callback', validate => false);
	SELECT taskshed.add_task('$callback', now() + interval '1 day', '{"$key": "$secret"}',
		task_id => '$callback daily', every => '1 day', validate => false);}
		} @bad));
$node->safe_psql(
	'postgres', q{
DROP FUNCTION goes(text);
DROP FUNCTION renames(text);
CREATE FUNCTION renames(nothing text) RETURNS void LANGUAGE sql AS ''});
beside('app');
beside('other');
$node->safe_psql(
	'postgres', q{
SET ROLE app;
SELECT taskshed.update_execution_time(task_id, now()) FROM taskshed.tasks});
beside('app');
beside('other');
await(
	$node,
	'SELECT count(*) = '
	  . 2 * @bad
	  . q{ FROM taskshed.tasks WHERE run_count = 1},
	'the bad ones have run');
await(
	$node,
	"SELECT count(*) = $good FROM ledger WHERE what = 'good'",
	'all others have run');
is( $node->safe_psql(
		'postgres', 'SELECT n FROM t UNION ALL SELECT n FROM child'),
	'',
	'nothing is left of what they did');

foreach my $bad (@bad)
{
	my ($callback, $sqlstate, $message) = @$bad;
	my $query = q{
		SELECT concat_ws('|', state, last_status, last_sqlstate, run_count, failures_in_row, attempt,
			%s) || '|' || last_error FROM taskshed.tasks WHERE task_id = '%s'};
	my $once =
	  $node->safe_psql('postgres', sprintf($query, q{'-'}, $callback));
	my $daily = $node->safe_psql('postgres',
		sprintf($query, q{run_at > now()}, "$callback daily"));

	$message = defined $message ? qr/^\Q$message\E$/s : qr/./;
	like(
		$once,
		qr/^failed\|failed\|$sqlstate\|1\|1\|1\|-\|/,
		"$callback: a one-off stays as failed");
	like((split(/\|/, $once, 8))[7], $message, "$callback: with its message");
	like(
		$daily,
		qr/^scheduled\|failed\|$sqlstate\|1\|1\|0\|t\|/,
		"$callback: a recurring one goes on and remembers");
	like((split(/\|/, $daily, 8))[7], $message,
		"$callback: with its message");

	# the log
	$node->wait_for_log(qr/task "$callback daily"/, $log);
	my @lines = grep { /task "$callback( daily)?"/ }
	  split(/\n/, slurp_file($node->logfile, $log));
	is(scalar(grep { /WARNING/ } @lines),
		2, "$callback: one line for each in the log");
	is(scalar(@lines), 2, "$callback: and no more than that");
	like(
		$lines[0],
		qr/WARNING:  task "$callback[^"]*" of role "app" in database "postgres" failed in public\.$callback: $sqlstate: /,
		"$callback: the log says what and why");
}
unlike(slurp_file($node->logfile, $log),
	qr/$secret/, 'the log does not know the arguments');
unlike(
	slurp_file($node->logfile, $log),
	qr/^\s*and another/m,
	'a message of two lines is one line in the log');
is( $node->safe_psql(
		'postgres',
		'SELECT failed, runs_failed, last_failure_at IS NOT NULL FROM taskshed.status'
	),
	join('|', scalar(@bad), 2 * @bad, 't'),
	'the status counts the failures');

# Failed ones do not run again by themselves, and come back when they are told
# to: by a new time, or by being added again.
$node->safe_psql(
	'postgres', q{
CREATE OR REPLACE FUNCTION raises(secret text) RETURNS void LANGUAGE sql AS $$ SELECT public.note('raises no more') $$;
CREATE FUNCTION goes(secret text) RETURNS void LANGUAGE sql AS $$ SELECT public.note('is back') $$;
CREATE OR REPLACE FUNCTION divides(secret text) RETURNS integer LANGUAGE sql AS $$ SELECT public.note('divides'); SELECT 1 $$;
CREATE OR REPLACE FUNCTION is_late(secret text) RETURNS void LANGUAGE sql AS $$ SELECT public.note('in time') $$;
SET ROLE app;
SELECT taskshed.update_execution_time('raises', now());
SELECT taskshed.update_execution_times(array[row('goes', now())::taskshed.task_execution_time]);
SELECT taskshed.add_task('divides', kwargs => '{"secret": "x"}', task_id => 'divides');
SELECT taskshed.add_task('is_late', kwargs => '{"secret": "x"}', task_id => 'is_late', replace_existing => false);
SELECT taskshed.update_execution_time('raises daily', now());
});
await(
	$node,
	q{SELECT count(*) = 5 FROM ledger WHERE what IN ('raises no more', 'is back', 'divides', 'in time')},
	'what had failed has run');
await(
	$node, q{
	SELECT count(*) = 1 FROM taskshed.tasks
	WHERE task_id IN ('raises', 'goes', 'divides', 'is_late', 'raises daily')},
	'and is done');
is( $node->safe_psql(
		'postgres', q{
		SELECT state, last_status, last_sqlstate IS NULL, last_error IS NULL, run_count, failures_in_row
		FROM taskshed.tasks WHERE task_id = 'raises daily'}),
	'scheduled|succeeded|t|t|2|0',
	'a recurring one that succeeds forgets its error');
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.tasks WHERE state = 'failed' AND run_count = 1}
	),
	@bad - 4,
	'the other failed ones are as they were');

# Cancelled from outside.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql(
	'postgres', q{
SET ROLE app;
SELECT taskshed.remove_all_tasks();
SELECT taskshed.add_task('hold', kwargs => '{"what": "cancelled"}', task_id => 'cancelled')}
);
await_blocked($node, 1);
$node->safe_psql('postgres',
	'SELECT pg_cancel_backend(worker_pid) FROM taskshed.tasks');
await(
	$node,
	q{SELECT state = 'failed' AND last_sqlstate = '57014' FROM taskshed.tasks WHERE task_id = 'cancelled'},
	'a run that is cancelled has failed');
$holder->query('SELECT pg_advisory_unlock(1)');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'cancelled'}),
	'0',
	'and had no effect');
beside('app');
await(
	$node,
	"SELECT count(*) = $good FROM ledger WHERE what = 'good'",
	'other tasks go on');

# One that ends its process whenever it runs is not lost and not failed, and
# disturbs nobody.
$log = -s $node->logfile;
$node->safe_psql(
	'postgres', qq{
SET ROLE app;
SELECT taskshed.add_task('terminates', kwargs => '{"secret": "$secret"}', task_id => 'terminates')}
);
foreach (1 .. 2)
{
	$log =
	  $node->wait_for_log(qr/FATAL: .*terminat.*due to administrator command/,
		$log);
	beside('app');
	beside('other');
}
await(
	$node,
	"SELECT count(*) = $good FROM ledger WHERE what = 'good'",
	'others run beside one that ends its process');
is( $node->safe_psql(
		'postgres', q{
		SELECT state IN ('due', 'running'), run_count FROM taskshed.tasks WHERE task_id = 'terminates'}
	),
	't|0',
	'it is still there');
is( $node->safe_psql(
		'postgres',
		q{SET ROLE app; SELECT taskshed.remove_task('terminates')}),
	't',
	'it can be removed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'),
	'0', 'it had no effect');

# A role that is gone or may not log in.
$node->safe_psql(
	'postgres', q{
CREATE ROLE gone LOGIN;
CREATE ROLE shut LOGIN;
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "ghost"}', task_id => r || ' once', owner => r),
	taskshed.add_task('note', now() + interval '1 day', '{"what": "ghost"}', task_id => r || ' every', every => '1 day', owner => r)
FROM unnest(array['gone'::name, 'shut']) r});
$node->safe_psql('postgres', 'DROP ROLE gone; ALTER ROLE shut NOLOGIN');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.update_execution_time(task_id, now(), 'shut') FROM taskshed.tasks WHERE owner = 'shut';
UPDATE _taskshed.alarm SET run_at = now() FROM _taskshed.task
WHERE task.id = alarm.id AND task.owner_name = 'gone'});
if ($node->safe_psql('postgres', 'SHOW server_version_num') < 170000)
{
	$node->wait_for_log(qr/role "shut" is not permitted to log in/, $log);
}
beside('app');
beside('other');
await(
	$node,
	"SELECT count(*) = $good FROM ledger WHERE what = 'good'",
	'others run beside tasks of roles that are gone');
await(
	$node, q{
	SELECT count(*) = 2 FROM taskshed.tasks
	WHERE task_id IN ('gone every', 'gone once') AND state = 'failed' AND last_sqlstate = '42704'},
	'these have failed');
$node->safe_psql('postgres', 'ALTER ROLE shut LOGIN');
await(
	$node,
	q{SELECT count(*) = 2 FROM ledger WHERE what = 'ghost' AND who = 'shut/shut'},
	'the role may log in again, and its tasks run');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'ghost'}),
	'2',
	'nobody ran those of the role that is gone');

# A role that is created anew inherits nothing.
$node->safe_psql('postgres', 'CREATE ROLE gone LOGIN');
$node->safe_psql('postgres',
	q{SET ROLE gone; SELECT taskshed.add_task('note', kwargs => '{"what": "new"}')}
);
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE who = 'gone/gone'},
	'the new role has run its task');
is( $node->safe_psql(
		'postgres', q{SELECT count(*) FROM ledger WHERE what = 'ghost'}),
	'2',
	'and not those of the old one');

# The log says why a run failed, not what its callback had caught before.
$node->safe_psql(
	'postgres', q{
SET client_min_messages = warning;
CREATE FUNCTION counts(n integer) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION catches(n integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		PERFORM taskshed.add_task('public.counts', kwargs => '{"n": "many"}');
	EXCEPTION WHEN OTHERS THEN
	END;
	RAISE EXCEPTION 'an error of its own';
END $$;
SELECT taskshed.add_task('catches', kwargs => '{"n": 1}', task_id => 'catches');
});
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'catches'},
	'a callback has caught an error and raised another');
like(
	slurp_file($node->logfile),
	qr/task "catches" of role "\w+" in database "postgres" failed in public\.catches: P0001: an error of its own/,
	'the log tells of the latter');
$node->safe_psql(
	'postgres', q{
CREATE OR REPLACE FUNCTION catches(n integer) RETURNS void LANGUAGE sql AS '';
CREATE DOMAIN few AS integer CHECK (VALUE < 10);
CREATE FUNCTION fewer(n few) RETURNS void LANGUAGE sql AS '';
SELECT taskshed.add_task('fewer', '2100-01-01', '{"n": 9}', task_id => 'fewer');
ALTER DOMAIN few ADD CHECK (VALUE < 5);
SELECT taskshed.update_execution_time('fewer', now());
});
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'fewer'},
	'a value does not fit any more');
like(
	slurp_file($node->logfile),
	qr/failed in public\.fewer: 23514: argument "n" of callback public\.fewer\(n few\) cannot have the value given in kwargs/,
	'the log tells which, but not the value');

# One that claims to return the same always is called at each run all the same.
$node->safe_psql(
	'postgres', q{
CREATE SEQUENCE calls;
CREATE FUNCTION claims() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$BEGIN RETURN nextval('public.calls'); END$$;
SELECT taskshed.add_task('claims', every => '10 ms', max_runs => 5, task_id => 'claims');
});
await_no_task($node, 'claims');
is( $node->safe_psql(
		'postgres',
		q{SELECT string_agg(result, ' ' ORDER BY finished_at, run_id) FROM taskshed.runs WHERE task_id = 'claims'}
	),
	'1 2 3 4 5',
	'an IMMUTABLE function without arguments is called at each run');

unlike(slurp_file($node->logfile),
	qr/$secret|PANIC|TRAP/, 'the log does not know the arguments');
$holder->quit;
$node->stop;
done_testing();
