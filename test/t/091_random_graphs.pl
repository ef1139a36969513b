
# Tasks that run after others, in random graphs: with failures, retries, removals, replacements and
# runs by hand, while workers, the scheduler, the launcher and the server are killed, terminated and
# stopped.  Each task has its effect exactly as often as a model says, which test/oracle.py is, sees
# those of the tasks that it has run after, and is in the end as the model says.
#
# TASKSHED_SOAK=20 does that for 20 minutes, TASKSHED_GRAPHS=1000 with so many graphs;
# TASKSHED_SEED=n repeats a sequence.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedFaults;
use TaskshedTest;
use Test::More;

my $minutes = $ENV{TASKSHED_SOAK}   || 0;
my $seed    = $ENV{TASKSHED_SEED}   || int(rand(1_000_000));
my $graphs  = $ENV{TASKSHED_GRAPHS} || 32;
my $nights  = $ENV{TASKSHED_NIGHTS} || 12;
my $each    = 8;
my $oracle  = "$FindBin::RealBin/../oracle.py";
my ($python) =
  grep { run_log([ $_, '-c', 'import zoneinfo' ], '2>', \my $ignored) }
  'python3', '/usr/bin/python3';
plan skip_all => 'there is no Python' if !defined $python;

# (A task that is hit by chance again and again must not be taken for the culprit.)
my $node = taskshed_node(
	'graphs', conf => qq{
restart_after_crash = on
wal_writer_delay = '1s'
taskshed.max_interruptions = 1000
taskshed.max_workers = @{[$nights + 4]}
max_worker_processes = @{[$nights + 18]}
});

# Each run that succeeds leaves a line, with what it was told of those that it has run after, and
# which of them have left theirs.  Before that it fails so many times: at once, at its commit, or
# since it takes too long.
query(
	q{
	CREATE ROLE app LOGIN;
	CREATE ROLE other LOGIN;
	ALTER ROLE other SET taskshed.tasks_per_commit = 16;
	CREATE TABLE plans (task text PRIMARY KEY, fails integer, how text);
	CREATE TABLE effects (id serial, task text NOT NULL, told jsonb, visible text[]);
	CREATE INDEX ON effects (task);
	CREATE TABLE told (task text, run bigint, parent text, ends text[], known text);
	CREATE TABLE echoes (task text);
	GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC;
	GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
	CREATE FUNCTION plan(task text, fails integer, how text) RETURNS void LANGUAGE sql AS $$
		INSERT INTO plans VALUES (plan.task, plan.fails, plan.how)
		ON CONFLICT ON CONSTRAINT plans_pkey DO UPDATE SET fails = plan.fails, how = plan.how $$;

	CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'on purpose, at the end';
	END $$;
	CREATE CONSTRAINT TRIGGER echo AFTER INSERT ON echoes DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION echo();

	CREATE FUNCTION work(task text, adds text DEFAULT NULL, before text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		attempt integer := (taskshed.current_task()).attempt;
		my public.plans;
	BEGIN
		SELECT * INTO my FROM public.plans p WHERE p.task = work.task;
		IF attempt <= my.fails AND my.how = 'raise' THEN
			RAISE EXCEPTION 'on purpose';
		ELSIF attempt <= my.fails AND my.how = 'timeout' THEN
			PERFORM pg_sleep(3600);
		ELSIF attempt <= my.fails THEN
			INSERT INTO public.echoes VALUES (work.task);
		END IF;
		INSERT INTO public.effects (task, told, visible)
		SELECT work.task, jsonb_object_agg(r.task_id, to_jsonb(r)) FILTER (WHERE r.task_id IS NOT NULL),
			array_agg(r.task_id) FILTER (WHERE EXISTS (SELECT FROM public.effects e WHERE e.task = r.task_id))
		FROM taskshed.parent_results() r;
		IF adds IS NOT NULL THEN
			PERFORM taskshed.add_task('public.work', kwargs => jsonb_build_object('task', adds), task_id => adds,
				before => ARRAY[work.before]);
		END IF;
		PERFORM pg_sleep(random() * 0.005);
		RETURN 'of ' || work.task;
	END $$;

	-- So that there always is a worker to be hit.
	CREATE FUNCTION beat() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.01)';
	SELECT taskshed.add_task('beat', every => '50 ms', task_id => 'beat', history => 'none');
});

# As the model shows it.
my $is = q{
	SELECT format('%s is %s%s|%s|%s', task_id, state,
		CASE WHEN state = 'failed' AND last_error ~ '^task ".*", which it was to run after, was removed$' AND last_sqlstate = '55000'
			THEN ' lost' END,
		CASE WHEN cardinality(after) = 20 AND waiting_for IS NOT NULL THEN 'many'
			ELSE (SELECT string_agg(w, ',' ORDER BY w COLLATE "C") FROM unnest(waiting_for) AS w) END,
		last_status)
	FROM taskshed.tasks WHERE task_id <> 'beat'
	UNION ALL
	SELECT format('%s has %s, %s ended, %s succeeded, %s failed', task_id, parents, ended, succeeded, failed)
	FROM taskshed.followers JOIN taskshed.tasks USING (owner, task_id) WHERE waiting_for IS NOT NULL
	UNION ALL
	SELECT format('%s: %s %s', task_id, count(*), status) FROM taskshed.runs
	WHERE task_id LIKE 'PREFIX.%' AND status <> 'interrupted' GROUP BY task_id, status
	UNION ALL
	SELECT format('%s: %s effects', task, count(*)) FROM effects
	WHERE task LIKE 'PREFIX.%' GROUP BY task};

# What is in one of two lists and not in the other; nothing if they are the same.
sub difference
{
	my ($expected, $actual) = @_;
	my %n;

	$n{$_}++ foreach @$expected;
	$n{$_}-- foreach @$actual;
	return map { ($n{$_} > 0 ? '-' : '+') . " $_\n" }
	  grep { $n{$_} != 0 } sort keys %n;
}

# All that was told, and to whom, is as the model says; what has succeeded is there to be seen.
my $mistold = q{
	WITH runs AS (SELECT *, row_number() OVER (PARTITION BY task ORDER BY id) AS run FROM effects
			WHERE task LIKE 'PREFIX.%'),
		heard AS (SELECT task, run, key AS parent, value FROM runs, jsonb_each(told))
	SELECT 'not told', task, run, parent, t.ends::text FROM told t LEFT JOIN heard h USING (task, run, parent)
		WHERE known = 'exactly' AND h.parent IS NULL
	UNION ALL
	SELECT 'told', task, run, parent, h.value::text FROM heard h LEFT JOIN told t USING (task, run, parent)
		WHERE t.ends IS NULL OR NOT h.value->>'status' = ANY (t.ends)
			OR h.value->>'status' = 'succeeded' AND h.value->>'result' IS DISTINCT FROM 'of ' || parent
			OR h.value->>'status' = 'skipped' AND h.value->>'sqlstate' IS NOT NULL
			OR h.value->>'status' IN ('failed', 'timeout') AND h.value->>'message' IS NULL
			OR h.value->>'finished_at' IS NULL OR h.value->>'run_at' IS NULL
	UNION ALL
	SELECT 'not to be seen', task, run, key, visible::text FROM runs, jsonb_each(told)
		WHERE value->>'status' = 'succeeded' AND NOT key = ANY (coalesce(visible, '{}'))
	UNION ALL
	SELECT 'without a failure', task, run, NULL, r.told::text FROM runs r
		WHERE (task, run) IN (SELECT task, run FROM told WHERE known = 'failure')
			AND NOT EXISTS (SELECT FROM jsonb_each(told) WHERE value->>'status' IN ('failed', 'timeout'))
	LIMIT 10};

# Nights: no faults, but the test decides when what ends.
query(
	q{
	CREATE FUNCTION night(task text, lock integer) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		my public.plans;
	BEGIN
		SELECT * INTO my FROM public.plans p WHERE p.task = night.task;
		PERFORM pg_advisory_xact_lock_shared(lock);
		IF my.fails > 0 THEN
			RAISE EXCEPTION 'on purpose';
		END IF;
		RETURN (SELECT string_agg(format('%s=%s@<%s>', task_id, status, run_at), ' ' ORDER BY task_id COLLATE "C")
			FROM taskshed.parent_results());
	END $$;

	-- A time as the model has it.
	CREATE FUNCTION number_of(t timestamptz, night text) RETURNS text LANGUAGE sql AS $$
		SELECT CASE WHEN t < '2022-01-01' THEN (t::date - date '2020-01-01')::text
			ELSE (10000 + (SELECT count(DISTINCT scheduled_at) FROM taskshed.runs
				WHERE task_id LIKE night || '/%' AND status <> 'skipped'
					AND scheduled_at > '2022-01-01' AND scheduled_at <= t))::text END $$;
	CREATE VIEW nightly AS
	WITH runs AS (SELECT *, row_number() OVER (PARTITION BY task_id ORDER BY finished_at, run_id) AS n
			FROM taskshed.runs WHERE task_id LIKE 'n%/%')
	SELECT split_part(task_id, '/', 1) AS night, format('%s %s %s %s %s', task_id, n, status,
		public.number_of(scheduled_at, split_part(task_id, '/', 1)),
		(SELECT string_agg(CASE WHEN part LIKE '%=%' THEN split_part(part, '<', 1) ||
					public.number_of(split_part(split_part(part, '<', 2), '>', 1)::timestamptz,
						split_part(task_id, '/', 1)) END,
				' ' ORDER BY i)
			FROM regexp_split_to_table(result, '(?<=>) ') WITH ORDINALITY AS p(part, i)))
	FROM runs
	UNION ALL
	SELECT split_part(task_id, '/', 1), format('%s is %s %s', task_id, state,
		(SELECT string_agg(w, ',' ORDER BY w COLLATE "C") FROM unnest(waiting_for) AS w))
	FROM taskshed.tasks WHERE task_id LIKE 'n%/%' AND after IS NOT NULL});

sub try_nights
{
	my ($n, $steps) = @_;
	my ($json, $stderr) =
	  run_command([ $python, $oracle, 'nights', $seed, $n, $steps ]);
	my $story   = eval { decode_json($json) } or die "no oracle: $stderr";
	my $watcher = session($node);
	my $holder  = session($node);
	my %left    = map { $_ => 1 } 0 .. $n - 1;

	foreach my $step (0 .. $steps)
	{
		my @now     = map { $story->{nights}[$_][$step] } sort keys %left;
		my $running = join ',', sort map { @{ $_->{running} } } @now;
		my @sql     = map { @{ $_->{sql} } } @now;

		$holder->safe_query("SELECT pg_advisory_lock($_)")
		  foreach grep { $_ } map { $_->{lock} } @now;
		$watcher->safe_query(
			join(";\n", 'BEGIN', 'SET LOCAL ROLE app', @sql, 'COMMIT'))
		  if @sql;
		$holder->safe_query("SELECT pg_advisory_unlock($_)")
		  foreach grep { $_ } map { $_->{unlock} } @now;
		last
		  if !await(
			$watcher,
			qq{SELECT coalesce(string_agg(task_id, ',' ORDER BY task_id COLLATE "C") FILTER (WHERE state = 'running'), '')
					= '$running' AND count(*) FILTER (WHERE state = 'due') = 0
				AND NOT EXISTS (SELECT FROM _taskshed.alarm WHERE resume_at IS NOT NULL
					AND id NOT IN (SELECT id FROM taskshed._running()))
			FROM taskshed.tasks WHERE task_id LIKE 'n%/%'},
			"step $step of the nights is over");
		foreach my $i (sort keys %left)
		{
			my @differences = difference(
				$story->{nights}[$i][$step]{expected},
				[
					split /\n/,
					$watcher->safe_query(
						"SELECT format FROM nightly WHERE night = 'n$i'")
				]);

			next if !@differences;
			fail("nights $i, step $step");
			diag("seed $seed: - as it should be, + as it is\n", @differences);
			delete $left{$i};
		}
	}
	is(scalar(keys %left), $n, 'all nights are as the model says');
	diag(
		join(', ',
			map { "$_ $story->{kinds}{$_}" } sort keys %{ $story->{kinds} }));
	$watcher->quit;
	$holder->quit;
	query(q{SELECT taskshed.remove_all_tasks(owner => 'app')});
	return;
}
try_nights($nights, 40);

my $faults = TaskshedFaults->new($node, $seed, without => 'cancel worker');
my $end    = time + 60 * $minutes;
my $calm   = q{NOT EXISTS (SELECT FROM taskshed.tasks
	WHERE state IN ('due', 'running', 'scheduled') AND task_id <> 'beat')
	AND NOT EXISTS (SELECT FROM _taskshed.alarm WHERE resume_at IS NOT NULL)};
my $round = 0;
my %kinds;
my $wrong = 0;
diag("seed $seed");

while ($minutes > 0 ? time < $end : $round * $each < $graphs)
{
	my ($json, $stderr) =
	  run_command([ $python, $oracle, 'graphs', $seed, ++$round, $each ]);
	my $story   = eval { decode_json($json) } or die "no oracle: $stderr";
	my $step    = 0;
	my $prefix  = "r$round";
	my @strikes = map { int(rand(@{ $story->{steps} })) } 1 .. 2;
	$kinds{$_} += $story->{kinds}{$_} foreach keys %{ $story->{kinds} };
	foreach my $each_step (@{ $story->{steps} })
	{
		my $n = 0;

		query(
			join "\n",
			map {
					'BEGIN; SET LOCAL ROLE '
				  . ($n++ % 2 ? 'app' : 'other') . ";\n"
				  . join(";\n", @$_)
				  . ";\nCOMMIT;"
			} @{ $each_step->{sql} });
		foreach (grep { $_ == $step } @strikes)
		{
			my $done =
			  query('SELECT count(*) FROM effects') + int(rand(20 * $each));

			TaskshedFaults::ask($node,
				"SELECT 1 WHERE (SELECT count(*) FROM effects) >= $done OR $calm"
			);
			$faults->strike;
		}
		TaskshedFaults::await_through_crashes($node, $calm);

		my @differences = difference($each_step->{expected},
			[ split /\n/, query($is =~ s/PREFIX/$prefix/gr) ]);
		if (@differences)
		{
			fail("round $round, step $step");
			diag(
				"seed $seed: - as it should be, + as it is\n",
				@differences[
				  0 .. ($#differences < 40 ? $#differences : 40)
				]);
			$wrong++;
			last;
		}
		$step++;
	}
	if ($step == @{ $story->{steps} })
	{
		query(
			'TRUNCATE told; INSERT INTO told SELECT a->>0, (a->>1)::bigint, a->>2, (a->>3)::text[], a->>4'
			  . q{ FROM jsonb_array_elements($json$}
			  . encode_json($story->{told})
			  . q{$json$) AS a});
		my $mistold_here = query($mistold =~ s/PREFIX/$prefix/gr);
		if ($mistold_here ne '')
		{
			fail("round $round: what was told");
			diag("seed $seed:\n$mistold_here");
			$wrong++;
		}
	}
	query(
		q{SELECT taskshed.remove_all_tasks(owner => 'app') + taskshed.remove_all_tasks(owner => 'other')}
	);
	is(query('SELECT count(*) FROM _taskshed.edge'),
		0, "round $round: nothing is left");
	diag("$round rounds, " . ($faults->counts)[1]) if $round % 25 == 0;
	last                                           if $wrong >= 5;
}
is($wrong, 0, 'all graphs have ended as the model says');
diag(   $round * $each
	  . ' graphs: '
	  . join(', ', map { "$_ $kinds{$_}" } sort keys %kinds));
diag(($faults->counts)[1]);
is(log_lines($node, qr/PANIC|TRAP/), '', 'no crash by itself');
$node->stop;
done_testing();
