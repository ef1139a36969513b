
# What a worker keeps of callbacks is bounded: ten thousand different ones leave
# it no larger than a thousand did.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'many_callbacks', conf => q{
taskshed.max_workers = 1
taskshed.worker_idle_timeout = 600s
});

# 2,000 functions, each called with five sets of keys
my $functions = 2000;
my $sets      = 5;

$node->safe_psql(
	'postgres', qq{
CREATE ROLE app LOGIN;
CREATE SCHEMA lib;
GRANT USAGE ON SCHEMA lib TO app;
DO \$\$
BEGIN
	FOR i IN 1 .. $functions LOOP
		EXECUTE format('CREATE FUNCTION lib.f%s(a integer DEFAULT 1, b text DEFAULT ''b'', c jsonb DEFAULT NULL, d numeric[] DEFAULT NULL)
			RETURNS integer LANGUAGE sql AS ''SELECT a''', i);
	END LOOP;
END \$\$;
CREATE TABLE memory (phase text, pid integer, bytes bigint, callbacks bigint, plans bigint);
CREATE FUNCTION measure(phase text) RETURNS void LANGUAGE sql SECURITY DEFINER AS \$\$
	INSERT INTO public.memory
	SELECT phase, pg_backend_pid(), sum(total_bytes), count(*) FILTER (WHERE name = 'taskshed callback'),
		count(*) FILTER (WHERE name LIKE 'CachedPlan%')
	FROM pg_backend_memory_contexts
\$\$;
});

my $app = session($node);
$app->query('SET SESSION AUTHORIZATION app');

# Runs the calls from the first to the last, and then measures.
sub run_calls
{
	my ($phase, $first, $last) = @_;

	is( $app->query(
			qq{SELECT count(taskshed.add_task('lib.f' || 1 + i / $sets, '2000-01-01'::timestamptz + i * interval '1 ms',
				CASE i % $sets WHEN 0 THEN '{}' WHEN 1 THEN '{"a": 1}' WHEN 2 THEN '{"b": "x"}'
					WHEN 3 THEN '{"a": 1, "c": {}}' ELSE '{"a": 1, "b": "x", "c": [], "d": [1, 2]}' END::jsonb))
			FROM generate_series($first, $last) i}),
		$last - $first + 1,
		"$phase: tasks are scheduled");
	await(
		$node,
		q{SELECT count(*) = 0 FROM taskshed.tasks},
		"$phase: all have run");
	$app->query(
		qq{SELECT taskshed.add_task('public.measure', kwargs => '{"phase": "$phase"}')}
	);
	await(
		$node,
		q{SELECT count(*) = 0 FROM taskshed.tasks},
		"$phase: measured");
	return split(
		/\|/,
		$node->safe_psql(
			'postgres',
			"SELECT pid, bytes, callbacks, plans FROM memory WHERE phase = '$phase'"
		));
}

# The memory of its own that a process has resident, in kB, where that can be read
sub resident
{
	my ($pid) = @_;

	return 0 unless -r "/proc/$pid/status";
	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : 0;
}

my $n = $functions * $sets;
my ($pid, $bytes, $callbacks, $plans) = run_calls('thousand', 0, $n / 10 - 1);
my $resident = resident($pid);
my ($pid2, $bytes2, $callbacks2, $plans2) = run_calls('all', $n / 10, $n - 1);
my $resident2 = resident($pid2);
my ($pid3, $bytes3, $callbacks3, $plans3) = run_calls('again', 0, $n - 1);
my $resident3 = resident($pid3);
diag(
	"bytes $bytes, $bytes2, $bytes3; resident kB $resident, $resident2, $resident3; "
	  . "callbacks $callbacks, $callbacks2, $callbacks3; plans $plans, $plans2, $plans3"
);

is("$pid2 $pid3", "$pid $pid", 'one worker has run all');
cmp_ok($callbacks, '>', 10,  'callbacks are kept');
cmp_ok($_,         '<', 600, 'not too many of them')
  foreach $callbacks, $callbacks2, $callbacks3;
cmp_ok($_, '<', 1500, 'nor of their plans') foreach $plans, $plans2, $plans3;

# (What else grows is the server's own cache of the catalogs: some 2 kB for each
# of the functions.)
cmp_ok($bytes2 - $bytes,
	'<', 12_000_000, 'memory does not grow with the number of callbacks');
cmp_ok($bytes3 - $bytes2,      '<', 2_000_000, 'nor with the number of runs');
cmp_ok($resident3 - $resident, '<', 30_000,    'nor does the process');

# The session that schedules them keeps no more.
is( $node->safe_psql(
		'postgres', qq{
		SELECT count(taskshed.add_task('lib.f' || 1 + i / $sets, '2100-01-01', CASE i % $sets WHEN 0 THEN '{}' ELSE '{"a": 1}' END::jsonb,
			task_id => 'same')) FROM generate_series(0, $n / 2) i;
		SELECT count(*) FILTER (WHERE name = 'taskshed callback') < 600 FROM pg_backend_memory_contexts}
	),
	$n / 2 + 1 . "\nt",
	'nor does a session, after its transaction');

# And within one transaction, where an earlier one is still in use.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION lib.schedule(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM taskshed.add_task('lib.whole', '2100-01-01', jsonb_build_object('key ' || i, i), task_id => 'whole');
		-- one that fails after it has been found
		BEGIN
			PERFORM taskshed.add_task('lib.fails', '2100-01-01', jsonb_build_object('a' || i % 100, 1, 'a' || i % 99, 'x'));
		EXCEPTION WHEN OTHERS THEN
		END;
	END LOOP;
	RETURN (SELECT count(*) FILTER (WHERE name = 'taskshed callback') || ' callbacks' FROM pg_backend_memory_contexts);
END $$;
CREATE FUNCTION lib.whole(kwargs jsonb) RETURNS void LANGUAGE sql AS '';
DO $$
BEGIN
	EXECUTE (SELECT format('CREATE FUNCTION lib.fails(%s) RETURNS void LANGUAGE sql AS %L',
		string_agg(format('a%s integer DEFAULT 0', i), ', '), '') FROM generate_series(0, 99) i);
END $$;
SELECT taskshed.add_task('lib.schedule', '2100-01-01', '{"n": 10000}', task_id => 'schedule');
});
my ($kept) =
  $node->safe_psql('postgres', q{SELECT taskshed.try_task('schedule')}) =~
  /^(\d+) callbacks$/;
cmp_ok($kept, '<', 600, 'nor does a session within a transaction');

$app->quit;
no_crash($node);
$node->stop;
done_testing();
