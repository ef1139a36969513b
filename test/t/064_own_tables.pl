
# What is done to our own tables while tasks run: VACUUM FULL, CLUSTER and REINDEX,
# CONCURRENTLY too, neither fail nor wait for long, and no task is lost or done
# twice.  What a superuser writes by hand is heeded as the rows say.  (042_odd_rows
# has the rows that no function would write.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;
use Time::HiRes qw(time);

my $node = taskshed_node('own_tables');

# Tasks flow: ten recurring ones, one that runs after two of them, and one-off ones that two sessions
# add, each with another one behind it.
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "often"}', every => '5 ms', task_id => 'often ' || i) FROM generate_series(1, 10) i}
);
query(
	q{SELECT taskshed.add_task('note', kwargs => '{"what": "after"}', after => '{often 1,often 2}', task_id => 'after')}
);
my @sessions = map { session($node) } 1 .. 2;

sub flow
{
	my ($round) = @_;

	foreach my $i (0 .. $#sessions)
	{
		$sessions[$i]->send(
			qq{DO \$\$
			BEGIN
				FOR n IN 1..400 LOOP
					PERFORM taskshed.add_task('public.note', kwargs => jsonb_build_object('what', format('once $round %s %s', $i, n)), task_id => format('s%s %s', $i, n)),
						taskshed.add_task('public.note', kwargs => jsonb_build_object('what', format('then $round %s %s', $i, n)), task_id => format('s%s %s then', $i, n),
							after => array[format('s%s %s', $i, n)]);
					COMMIT;
					PERFORM pg_sleep(0.001);
				END LOOP;
			END \$\$}
		);
	}
	return;
}
my @statements = (
	'VACUUM FULL _taskshed.task',
	'VACUUM FULL _taskshed.alarm',
	'VACUUM FULL _taskshed.edge',
	'VACUUM FULL _taskshed.run_0',
	'VACUUM FULL _taskshed.home',
	'CLUSTER _taskshed.task USING task_pkey',
	'CLUSTER _taskshed.alarm USING alarm_task',
	'CLUSTER _taskshed.edge USING edge_parent',
	'REINDEX TABLE _taskshed.task',
	'REINDEX TABLE _taskshed.alarm',
	'REINDEX TABLE _taskshed.edge',
	'REINDEX INDEX _taskshed.alarm_queue',
	'REINDEX TABLE CONCURRENTLY _taskshed.task',
	'REINDEX TABLE CONCURRENTLY _taskshed.alarm',
	'REINDEX TABLE CONCURRENTLY _taskshed.edge',
	'REINDEX INDEX CONCURRENTLY _taskshed.alarm_queue',
	'REINDEX INDEX CONCURRENTLY _taskshed.task_key',
	'REINDEX SCHEMA CONCURRENTLY _taskshed',
	'REINDEX SCHEMA _taskshed',
	'VACUUM (FREEZE, ANALYZE) _taskshed.task, _taskshed.alarm, _taskshed.edge'
);
my ($longest, $slowest) = (0, '');
foreach my $round (1 .. 3)
{
	flow($round);
	foreach my $statement (@statements)
	{
		my $begin = time();
		my ($rc, $out, $err) = $node->psql('postgres', $statement);
		my $took = time() - $begin;

		is($err, '', "$statement while tasks run");
		($longest, $slowest) = ($took, $statement) if $took > $longest;
	}
	is($_->result, '', 'a session that schedules has had no error')
	  foreach @sessions;
}
$_->quit foreach @sessions;
diag(sprintf 'the slowest, psql included: %s, %.0f ms',
	$slowest, 1000 * $longest);
cmp_ok($longest, '<', 30, 'none has waited for long');
await_no_task($node, 's%');
is( query(
		q{SELECT count(*), count(DISTINCT what) FROM ledger WHERE what ~ '^(once|then)'}
	),
	'4800|4800',
	'each task has run once');
my $often = query(q{SELECT count(*) FROM ledger WHERE what = 'often'});
await(
	$node,
	"SELECT count(*) > $often + 10 FROM ledger WHERE what = 'often'",
	'the others go on');
my $after = query(q{SELECT count(*) FROM ledger WHERE what = 'after'});
await(
	$node,
	"SELECT count(*) > $after + 10 FROM ledger WHERE what = 'after'",
	'and what runs after them does');
is( query(
		q{SELECT count(*) FROM taskshed.runs WHERE status NOT IN ('succeeded', 'missed')}
	),
	'0',
	'and no run has failed');
is(query(q{SELECT count(*) FROM pg_index WHERE NOT indisvalid}),
	'0', 'all indexes are valid');
query('SELECT taskshed.remove_all_tasks()');

# None waits for a callback that runs.
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
query(q{SELECT taskshed.add_task('hold', kwargs => '{"what": "held"}')});
await_blocked($node, 1);
foreach my $statement (grep { !/CONCURRENTLY/ } @statements)
{
	my ($rc, $out, $err) = $node->psql('postgres', $statement);
	is($err, '', "$statement while a callback runs");
}
$holder->query('SELECT pg_advisory_unlock(1)');
$holder->quit;
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'held'},
	'it ends as if nothing had been');

# By hand
my $moves = q{FROM _taskshed.task t WHERE t.id = a.id AND task_id = };
query(
	q{SELECT taskshed.add_task('note', '2100-01-01', jsonb_build_object('what', n), task_id => n)
	FROM unnest(ARRAY['earlier', 'deleted task', 'deleted alarm', 'paused', 'changed']) n;
	SELECT taskshed.add_task('note', now() + interval '2 s', jsonb_build_object('what', n), task_id => n)
	FROM unnest(ARRAY['later', 'deleted', 'on time']) n});
query("UPDATE _taskshed.alarm a SET run_at = now() $moves 'earlier'");
await(
	$node,
	q{SELECT count(*) = 1 FROM ledger WHERE what = 'earlier'},
	'what was moved to now runs now');
query("UPDATE _taskshed.alarm a SET run_at = '2100-01-01' $moves 'later'");
query(
	"UPDATE _taskshed.task SET kwargs = '{\"what\": \"changes\"}' WHERE task_id = 'changed'"
);
query(
	"UPDATE _taskshed.alarm a SET run_at = now(), paused_at = now() $moves 'paused'"
);
query(
	q{DELETE FROM _taskshed.alarm a USING _taskshed.task t WHERE t.id = a.id AND task_id IN ('deleted', 'deleted alarm');
	DELETE FROM _taskshed.task WHERE task_id IN ('deleted', 'deleted task');
	UPDATE _taskshed.alarm a SET run_at = now() WHERE NOT EXISTS (SELECT FROM _taskshed.task t WHERE t.id = a.id)}
);
query("UPDATE _taskshed.alarm a SET run_at = now() $moves 'changed'");
await(
	$node,
	q{SELECT count(*) = 2 FROM ledger WHERE what IN ('on time', 'changes')},
	'what is to run has run');
is( query(
		q{SELECT count(*) FROM ledger WHERE what IN ('later', 'paused', 'deleted', 'deleted alarm', 'deleted task', 'changed')}
	),
	'0',
	'and nothing else has');
query(q{TRUNCATE ledger; TRUNCATE _taskshed.task, _taskshed.alarm});

# A task inserted by hand, as a copy of another
query(
	q{SELECT taskshed.add_task('note', '2100-01-01', '{"what": "copied"}', task_id => 'original');
	CREATE TABLE t AS SELECT * FROM _taskshed.task;
	CREATE TABLE a AS SELECT * FROM _taskshed.alarm;
	UPDATE t SET id = nextval('_taskshed.task_seq'), task_id = 'copy';
	UPDATE a SET id = (SELECT id FROM t), run_at = now() - interval '1 s';
	BEGIN;
	INSERT INTO _taskshed.task SELECT * FROM t;
	INSERT INTO _taskshed.alarm SELECT * FROM a;
	COMMIT}
);
await($node, q{SELECT count(*) = 1 FROM ledger WHERE what = 'copied'},
	'it runs');
is(query('SELECT string_agg(task_id, $$ $$) FROM taskshed.tasks'),
	'original', 'and is gone');

# Emptied while tasks wait for their time, and are about to be handed out
foreach my $tables (
	'_taskshed.task',
	'_taskshed.alarm',
	'_taskshed.task, _taskshed.alarm',
	'_taskshed.task, _taskshed.alarm, _taskshed.edge')
{
	query('TRUNCATE ledger');
	query(
		q{SELECT taskshed.add_task('note', now() + n * interval '1 ms', '{"what": "emptied"}') FROM generate_series(500, 1500) n}
	);
	query("TRUNCATE $tables");

	# (where that took half a second, some have run before)
	my $ran = query(q{SELECT count(*) FROM ledger WHERE what = 'emptied'});
	query(
		q{SELECT taskshed.add_task('note', now() + interval '2 s', '{"what": "afterwards"}')}
	);
	await(
		$node,
		q{SELECT count(*) = 1 FROM ledger WHERE what = 'afterwards'},
		"new tasks run after TRUNCATE $tables");
	is(query(q{SELECT count(*) FROM ledger WHERE what = 'emptied'}),
		$ran, 'and those that were there do not');
	query('TRUNCATE _taskshed.task, _taskshed.alarm');
}

$node->stop;
unlike(
	slurp_file($node->logfile),
	qr/deadlock detected|PANIC|could not open relation|cache lookup failed|was terminated by signal/,
	'nothing in the log that should not be there');
done_testing();
