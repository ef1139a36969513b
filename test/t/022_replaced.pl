
# Callbacks that are replaced, dropped, created again, renamed and re-granted
# while a worker of another role runs tasks of them: each task has succeeded,
# or failed because the callback was not there or not allowed at that moment.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('replaced');

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE SCHEMA lib;
CREATE SCHEMA lib2;
GRANT USAGE ON SCHEMA lib, lib2 TO app;
CREATE DOMAIN lib.small AS integer CHECK (VALUE < 5000);
CREATE TYPE lib.pair AS (x integer, y text);
CREATE TABLE done (n integer, version integer);
GRANT ALL ON done TO app;
});

# Each of ten callbacks in some version: a function or a procedure, with other
# arguments and types each time, but always with one that takes n
sub definition
{
	my ($i, $version) = @_;
	my $name = "lib.f$i";
	my $body = "INSERT INTO public.done VALUES (n, $version)";
	my $kind = $version % 5;

	return "CREATE PROCEDURE $name(n integer) LANGUAGE sql AS '$body'"
	  if $kind == 0;
	return
	  "CREATE FUNCTION $name(n bigint, other integer DEFAULT $version) RETURNS void LANGUAGE sql AS '$body'"
	  if $kind == 1;
	return
	  "CREATE FUNCTION $name(n lib.small) RETURNS SETOF integer LANGUAGE plpgsql AS 'BEGIN $body; RETURN NEXT 1; END'"
	  if $kind == 2;
	return
	  "CREATE PROCEDURE $name(n integer, p lib.pair DEFAULT NULL) LANGUAGE plpgsql AS 'BEGIN $body; COMMIT; END'"
	  if $kind == 3;
	return
	  "CREATE FUNCTION $name(n integer, OUT m integer) LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN $body; m := n; END'";
}

$node->safe_psql('postgres', join(";\n", map { definition($_, $_) } 0 .. 9));

# As many tasks as there will be, in the order of their numbers; the worker is
# kept from starting by a task that waits.
my $tasks  = 1000;
my $holder = session($node);
$holder->query('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres', "ALTER SYSTEM SET taskshed.max_workers = 1");
$node->reload;
my $app = session($node);
$app->query('SET SESSION AUTHORIZATION app');
$app->query(
	q{SELECT taskshed.add_task('public.hold', kwargs => '{"what": "first"}')}
);
await_blocked($node, 1);
is( $app->query(
		qq{SELECT count(taskshed.add_task('lib.f' || i % 10, '2000-01-01'::timestamptz + i * interval '1 s', jsonb_build_object('n', i),
			task_id => 'task ' || i)) FROM generate_series(1, $tasks) i}),
	$tasks,
	"$tasks tasks are scheduled");

# They take a moment each, so that changes come between them.
$node->safe_psql(
	'postgres', q{
CREATE FUNCTION lib.slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.003); RETURN NULL; END';
CREATE TRIGGER slow AFTER INSERT ON done FOR EACH ROW EXECUTE FUNCTION lib.slow();
});
$holder->query('SELECT pg_advisory_unlock(1)');

my $version = 10;
my $changes = 0;
while (
	$node->safe_psql('postgres',
		q{SELECT count(*) FROM taskshed.tasks WHERE state <> 'failed'}) > 0
	&& $changes < 10000)
{
	my @commands;

	foreach my $i (0 .. 9)
	{
		$version++;
		push(@commands,
			"DROP ROUTINE IF EXISTS lib.f$i",
			definition($i, $version))
		  if $version % 3 == 0;
		push(@commands,
			'BEGIN',
			"DROP ROUTINE IF EXISTS lib.f$i",
			definition($i, $version), 'COMMIT')
		  if $version % 3 == 1;
		push(@commands,
			"ALTER ROUTINE lib.f$i RENAME TO other",
			"ALTER ROUTINE lib.other RENAME TO f$i")
		  if $version % 7 == 0;
		push(@commands,
			"ALTER ROUTINE lib.f$i SET SCHEMA lib2",
			"ALTER ROUTINE lib2.f$i SET SCHEMA lib")
		  if $version % 7 == 1;
		push(@commands,
			"REVOKE ALL ON ROUTINE lib.f$i FROM PUBLIC",
			"GRANT EXECUTE ON ROUTINE lib.f$i TO app")
		  if $version % 7 == 2;
		# (not for a procedure: it could not COMMIT with that)
		push(@commands,
			"ALTER FUNCTION lib.f$i SET work_mem = '1MB'",
			"ALTER FUNCTION lib.f$i RESET work_mem")
		  if $version % 7 == 3;
		push(@commands,
			'REVOKE USAGE ON SCHEMA lib FROM app',
			'GRANT USAGE ON SCHEMA lib TO app')
		  if $version % 31 == 0;
		push(@commands,
			'ALTER SCHEMA lib RENAME TO lib3',
			'ALTER SCHEMA lib3 RENAME TO lib')
		  if $version % 37 == 0;
		push(@commands,
			'ALTER TYPE lib.pair ADD ATTRIBUTE z integer',
			'ALTER TYPE lib.pair DROP ATTRIBUTE z')
		  if $version % 41 == 0;
		push(@commands,
			'ALTER DOMAIN lib.small ADD CONSTRAINT more CHECK (VALUE > 0)',
			'ALTER DOMAIN lib.small DROP CONSTRAINT more')
		  if $version % 43 == 0;
	}
	# (A drop that comes between tears a schema's name apart, or meets a
	# routine somebody else is about to lock: the next round mends it.)
	my ($rc, $out, $err) = $node->psql(
		'postgres',
		join(";\n", @commands) . ';',
		on_error_stop => 0);
	$changes += @commands;
}
diag("$changes changes of callbacks while $tasks tasks ran");
cmp_ok($changes, '>', 100, 'there were changes meanwhile');

is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM taskshed.tasks WHERE state <> 'failed'}),
	'0',
	'no task is stuck');
is( $node->safe_psql(
		'postgres', q{
		SELECT last_sqlstate, last_error, count(*) FROM taskshed.tasks
		WHERE last_sqlstate NOT IN ('42883', '42501')
			AND last_error IS DISTINCT FROM 'schema "lib" does not exist' GROUP BY 1, 2}
	),
	'',
	'what failed did so because the callback was not there or not allowed');
diag(
	$node->safe_psql(
		'postgres', q{
		SELECT string_agg(last_sqlstate || ': ' || n, ', ') FROM (SELECT last_sqlstate, count(*) n FROM taskshed.tasks GROUP BY 1) s}
	));
is( $node->safe_psql(
		'postgres', qq{
		SELECT count(*) FROM generate_series(1, $tasks) i
		WHERE (SELECT count(*) FROM done WHERE n = i)
			<> CASE WHEN EXISTS (SELECT FROM taskshed.tasks WHERE task_id = 'task ' || i) THEN 0 ELSE 1 END}
	),
	'0',
	'each task had its effect once, or has failed and had none');
cmp_ok(
	$node->safe_psql('postgres', 'SELECT count(DISTINCT version) FROM done'),
	'>', 10, 'tasks ran many versions of their callbacks');

# Afterwards all is as if nothing had been.
$node->safe_psql(
	'postgres',
	join(
		";\n",
		map {
			("DROP ROUTINE IF EXISTS lib.f$_", definition($_, 10 * $_ + 4))
		} 0 .. 9));
$app->query(
	q{SELECT taskshed.remove_all_tasks(); TRUNCATE public.done;
	SELECT taskshed.add_task('lib.f' || i, kwargs => jsonb_build_object('n', i)) FROM generate_series(0, 9) i}
);
await($node, 'SELECT count(*) = 10 FROM done', 'all callbacks work');
await($node, 'SELECT count(*) = 0 FROM taskshed.tasks',
	'and nothing is left');

no_crash($node, 'XX000|cache lookup failed');
$_->quit foreach $app, $holder;
$node->stop;
done_testing();
