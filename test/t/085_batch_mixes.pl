
# Random mixes of callbacks, run in shared transactions and each by itself: the effects are the same, and
# so are the records, but for their times.
#
# The seed is printed, and can be given: TASKSHED_BATCH_SEED.  TASKSHED_BATCH_MIXES says how many.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $seed  = $ENV{TASKSHED_BATCH_SEED}  || int(rand(2**31));
my $mixes = $ENV{TASKSHED_BATCH_MIXES} || 30;
note("TASKSHED_BATCH_SEED=$seed");
srand($seed);

my $node = taskshed_node(
	'batch_mixes', conf => q{
taskshed.max_workers = 1
log_min_messages = debug1
taskshed.log_failures = off
});

# Two roles that differ in nothing but how their tasks are run.
my @roles = ('alone', 'shared');
query(
	q{
	CREATE ROLE alone LOGIN;
	CREATE ROLE shared LOGIN;
	ALTER ROLE shared SET taskshed.tasks_per_commit = 32;
	CREATE TABLE effects (who name DEFAULT current_user, n integer, what text, lost text);
	CREATE TABLE xids (who name DEFAULT current_user, xid xid8 DEFAULT pg_current_xact_id());
	CREATE TABLE parents (who name DEFAULT current_user, id integer, PRIMARY KEY (who, id));
	CREATE TABLE children (who name DEFAULT current_user, id integer,
		FOREIGN KEY (who, id) REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
	GRANT ALL ON effects, xids, parents, children TO PUBLIC;
	CREATE FUNCTION act(n integer, what text, other text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		lost text;
	BEGIN
		INSERT INTO public.xids DEFAULT VALUES;
		CASE what
			WHEN 'insert' THEN NULL;
			WHEN 'fail' THEN RAISE EXCEPTION 'fails %', n USING ERRCODE = 'ZZ001';
			WHEN 'catch' THEN
				BEGIN
					INSERT INTO public.effects (n, what) VALUES (n, 'rolled back');
					RAISE division_by_zero;
				EXCEPTION WHEN division_by_zero THEN NULL;
				END;
			WHEN 'violate' THEN INSERT INTO public.children (id) VALUES (-n);
			WHEN 'obey' THEN
				INSERT INTO public.children (id) VALUES (n);
				INSERT INTO public.parents (id) VALUES (n);
			WHEN 'slow' THEN PERFORM pg_sleep(0.01);
			WHEN 'set' THEN PERFORM set_config('app.left', n::text, n % 2 = 0);
			WHEN 'lock' THEN PERFORM CASE n % 2 WHEN 0 THEN pg_advisory_lock(n) ELSE pg_advisory_xact_lock(n) END;
			WHEN 'temp' THEN CREATE TEMP TABLE left_behind (i int) ON COMMIT DROP;
			WHEN 'add' THEN PERFORM taskshed.add_task('public.act', task_id => 'added by ' || n,
				kwargs => jsonb_build_object('n', 1000 + n, 'what', 'insert', 'other', other));
			WHEN 'add later' THEN PERFORM taskshed.add_task('public.act', '2100-01-01', task_id => 'later by ' || n,
				kwargs => jsonb_build_object('n', 1000 + n, 'what', 'insert', 'other', other));
			WHEN 'describe' THEN PERFORM taskshed.update_tasks('{"description": "seen"}', array[other]);
			WHEN 'own' THEN PERFORM taskshed.update_execution_time((taskshed.current_task()).task_id, '2100-01-01');
			WHEN 'nothing left' THEN NULL;
		END CASE;
		-- what an earlier run has left behind would be found here
		SELECT concat_ws(' ', nullif(current_setting('app.left', true), ''),
			CASE WHEN n % 5 = 0 THEN (SELECT 'lock' FROM pg_locks
				WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid <> act.n LIMIT 1) END,
			(SELECT 'temp' WHERE to_regclass('pg_temp.left_behind') IS NOT NULL AND act.what <> 'temp'))
		INTO lost;
		INSERT INTO public.effects (n, what, lost) VALUES (n, what,
			CASE WHEN what = 'set' THEN replace(lost, n::text, '') ELSE lost END);
		RETURN what;
	END $$});

my @kinds = (
	('insert') x 30,
	('fail') x 2,
	('violate') x 1,
	('slow') x 1,
	qw(catch obey set lock temp add describe own),
	'add later');

my ($same_effects, $same_records, $same_tasks, $shared, $lost) = (0) x 5;
for my $mix (1 .. $mixes)
{
	my $n     = 20 + int(rand(100));
	my $tasks = '';

	query('TRUNCATE effects, xids, parents, children');
	for my $i (1 .. $n)
	{
		my $kind = $kinds[ rand @kinds ];

		# (When one fails, the next ones run alone for a while.)
		$kind = 'insert' if $mix % 2 && $kind =~ /fail|violate|slow/;

		my $other = 'task ' . (1 + int(rand($n)));
		my $every = rand() < 0.1 ? q{, 'every', '1 year'} : '';
		my $tries =
		  rand() < 0.2 ? q{, 'max_attempts', 2, 'retry_delay', '1 ms'} : '';
		my $mode = rand() < 0.1 ? q{, 'history', 'errors'} : '';

		$tasks .= ', ' if $i > 1;
		$tasks .=
		  qq{jsonb_build_object('callback', 'public.act', 'task_id', 'task $i', 'kwargs', jsonb_build_object('n', $i, 'what', '$kind', 'other', '$other')$every$tries$mode)};
	}
	my %found;
	foreach my $role (@roles)
	{
		my $since = query('SELECT clock_timestamp()');

		$node->safe_psql('postgres',
			"SET ROLE $role; SELECT taskshed.add_tasks(to_jsonb(ARRAY[$tasks]))"
		);
		await(
			$node, q{
			SELECT NOT EXISTS (SELECT FROM taskshed.tasks WHERE state IN ('due', 'running')
				OR state = 'scheduled' AND run_at < now() + interval '1 hour')});
		$found{$role} = {
			effects => query(
				qq{SELECT string_agg(concat_ws(' ', n, what, lost), ', ' ORDER BY n, what) FROM effects WHERE who = '$role'}
			),
			records => query(
				qq{SELECT string_agg(concat_ws(' ', task_id, status, attempt, sqlstate, result, message), ', ' ORDER BY task_id, attempt, status)
				FROM taskshed.runs WHERE owner = '$role' AND finished_at > '$since'}
			),
			tasks => query(
				qq{SELECT string_agg(concat_ws(' ', task_id, state, run_count, last_status, last_sqlstate, failures_in_row), ', ' ORDER BY task_id)
				FROM taskshed.tasks WHERE owner = '$role'})
		};
	}
	$shared += query(
		q{SELECT count(*) FROM (SELECT FROM xids WHERE who = 'shared' GROUP BY xid HAVING count(*) > 1) AS x}
	);
	$lost += query(q{SELECT count(*) FROM effects WHERE lost <> ''});
	$same_effects++ if $found{alone}->{effects} eq $found{shared}->{effects};
	$same_records++ if $found{alone}->{records} eq $found{shared}->{records};
	$same_tasks++   if $found{alone}->{tasks} eq $found{shared}->{tasks};
	foreach my $what (qw(effects records tasks))
	{
		next if $found{alone}->{$what} eq $found{shared}->{$what};
		diag(
			"mix $mix, $what:\n  alone  $found{alone}->{$what}\n  shared $found{shared}->{$what}"
		);
	}
	query(
		q{SELECT taskshed.remove_all_tasks('alone'), taskshed.remove_all_tasks('shared')}
	);
}
is($same_effects, $mixes, 'the effects are the same');
is($same_records, $mixes, 'so are the records');
is($same_tasks,   $mixes, 'and what is left of the tasks');
is($lost,         0,      'nothing is left for the next run');
cmp_ok($shared, '>', 0, 'transactions were shared');
note("$shared transactions were shared");

no_crash($node);
$node->stop;
done_testing();
