
# Ways in that need no mistake of the role that is attacked: subscriptions,
# what is in the schema before the extension is, code that was parsed while
# there was USAGE, and policies that sessions load.
#
# Quick: promise 8

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node(
	'strangers', conf => q{
wal_level = logical
max_wal_senders = 5
max_replication_slots = 5
});
my $super = $node->safe_psql('postgres', 'SELECT current_user');

sub as
{
	return psql_as($node, @_);
}

$node->safe_psql(
	'postgres', q{
REVOKE USAGE ON SCHEMA taskshed FROM PUBLIC;
CREATE ROLE mallory LOGIN;
CREATE ROLE nobody LOGIN;
CREATE ROLE clerk LOGIN SUPERUSER IN ROLE pg_write_all_data;
GRANT USAGE ON SCHEMA taskshed TO mallory;
CREATE SCHEMA mallory AUTHORIZATION mallory;
GRANT ALL ON SCHEMA mallory TO PUBLIC;
CREATE TABLE public.crown (worn_by text);
CREATE DATABASE pub;
});

# A subscription writes rows without statements.  On 15 its owner must have
# been a superuser when it was made; from 16 on pg_create_subscription will do.
my $tables = $node->safe_psql(
	'postgres', q{
SELECT string_agg(format('CREATE TABLE _taskshed.%I (%s)', relname,
	(SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)), ';')
FROM pg_class c WHERE oid IN ('_taskshed.task'::regclass, '_taskshed.alarm'::regclass)}
);
$node->safe_psql(
	'pub', qq{
CREATE SCHEMA _taskshed;
$tables;
CREATE PUBLICATION p FOR TABLE _taskshed.task, _taskshed.alarm;
SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
my $publisher = $node->connstr('pub') =~ s/'//gr;
my $as_owner =
  $node->pg_version >= 16
  ? ', run_as_owner = true, password_required = false'
  : '';
as( 'clerk', qq{
CREATE SUBSCRIPTION s CONNECTION '$publisher user=$super' PUBLICATION p
	WITH (create_slot = false, copy_data = false$as_owner);
CREATE FUNCTION mallory.crown() RETURNS void LANGUAGE sql AS
	'INSERT INTO public.crown VALUES (session_user)'});
$node->safe_psql('postgres', 'ALTER ROLE clerk NOSUPERUSER');
my $lsn = $node->safe_psql(
	'pub', q{
INSERT INTO _taskshed.task (id, owner, created_at, owner_name, is_alias, task_id, callback, kwargs, run_type, timezone, catch_up)
	VALUES (777777, 10, now(), 'x', false, 'evil', 'mallory.crown', '{}', 'once', 'UTC', 'coalesce');
INSERT INTO _taskshed.alarm (id, run_at, scheduled_at, anchor, revision, run_count, owner, attempt, failures_in_row, interruptions)
	VALUES (777777, now(), now(), now(), 1, 0, 10, 0, 0, 0);
SELECT pg_current_wal_lsn()});
await(
	$node,
	"SELECT latest_end_lsn >= '$lsn' FROM pg_stat_subscription WHERE subname = 's'",
	'a subscription of pg_write_all_data has received tasks');
is( $node->safe_psql(
		'postgres',
		'SELECT (SELECT count(*) FROM _taskshed.task), (SELECT count(*) FROM crown)'
	),
	'0|0',
	'... and has not written them');
$node->psql('postgres', $_)
  foreach 'ALTER SUBSCRIPTION s DISABLE',
  'ALTER SUBSCRIPTION s SET (slot_name = NONE)', 'DROP SUBSCRIPTION s';

# What the script of CREATE EXTENSION could take for the server's own.
$node->safe_psql(
	'pub', q{
DROP SCHEMA _taskshed CASCADE;
CREATE SCHEMA taskshed;
GRANT ALL ON SCHEMA taskshed TO mallory});
is( as( 'mallory', q{
CREATE FUNCTION taskshed.trap(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	ALTER ROLE mallory SUPERUSER;
	RETURN false;
EXCEPTION WHEN OTHERS THEN
	RETURN false;
END $$;
CREATE OPERATOR taskshed.= (LEFTARG = oid, RIGHTARG = regclass, FUNCTION = taskshed.trap);
SELECT 'set'}, 'pub'),
	'set',
	'an operator in the schema, before the extension is there');
is(as($super, 'CREATE EXTENSION taskshed', 'pub'),
	'55000', '... keeps the extension out');
is( $node->safe_psql(
		'postgres',
		q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}),
	'f',
	'... and is not executed');

# What was parsed by a role that had USAGE.
as( 'mallory', q{
CREATE VIEW mallory.gate AS SELECT taskshed.add_task('public.note', kwargs => '{"what": "gate"}') AS id;
GRANT SELECT ON mallory.gate TO PUBLIC;
CREATE FUNCTION mallory.gate() RETURNS text
	BEGIN ATOMIC SELECT taskshed.add_task('public.note', kwargs => '{"what": "gate"}', task_id => 'gate'); END}
);
is(as('mallory', 'SELECT mallory.gate()'),
	'gate', 'a function that was parsed with USAGE');
is(as('nobody', 'SELECT mallory.gate()'),
	'42501', '... does not schedule for those without');
is(as('nobody', 'SELECT * FROM mallory.gate'), '42501',
	'... nor does a view');
$node->safe_psql('postgres', 'REVOKE USAGE ON SCHEMA taskshed FROM mallory');
is(as('mallory', 'SELECT mallory.gate()'),
	'42501', '... nor the function for its owner when that has lost USAGE');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA taskshed TO mallory');

# The name of a role that is two lines, where there can be one.
my $lines =
  $node->safe_psql('postgres',
	q{SELECT current_setting('server_version_num')::integer < 190000}) eq 't'
  ? "\n"
  : ' ';
$node->safe_psql(
	'postgres', qq{
CREATE ROLE "two${lines}LOG:  lines" LOGIN;
GRANT USAGE ON SCHEMA taskshed TO "two${lines}LOG:  lines"});
my $log = -s $node->logfile;
$node->safe_psql(
	'postgres', qq{
SET ROLE "two${lines}LOG:  lines";
SELECT taskshed.add_task('public.none', validate => false)});
ok( $node->wait_for_log(
		qr/of role "two LOG:  lines" in database "postgres" failed in/, $log),
	'a failure is one line of the log, whatever the role is called');

# What is put into the temporary schema by its own name.
as( 'mallory', q{
CREATE FUNCTION mallory.temp_1() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE t (i integer);
	RETURN pg_backend_pid();
END $$;
CREATE FUNCTION mallory.temp_2() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION %s.leftover() RETURNS text LANGUAGE sql AS %L',
		pg_my_temp_schema()::regnamespace, 'SELECT ''left''::text');
	RETURN pg_backend_pid();
END $$;
CREATE FUNCTION mallory.temp_3() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.leftover();
	RETURN 'found';
EXCEPTION WHEN undefined_function THEN
	RETURN pg_backend_pid();
END $$});
foreach my $i (1 .. 3)
{
	as('mallory',
		"SELECT taskshed.add_task('mallory.temp_$i', task_id => 'temp $i')");
	await_no_task($node, "temp $i");
}
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*), count(DISTINCT result), bool_or(result = 'found')
		FROM taskshed.runs WHERE task_id LIKE 'temp %'}),
	'3|1|f',
	'nothing is left in the temporary schema of a process');

# Libraries that a superuser has the role's sessions load.
SKIP:
{
	skip 'no auto_explain here', 1
	  if $node->psql('postgres', q{LOAD 'auto_explain'}) != 0;
	$node->safe_psql(
		'postgres', q{
ALTER ROLE mallory SET session_preload_libraries = 'auto_explain';
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'taskshed worker' AND usename = 'mallory'}
	);
	as( 'mallory', q{
CREATE FUNCTION mallory.loaded() RETURNS text LANGUAGE sql AS
	$$ SELECT current_setting('auto_explain.log_analyze', true) $$;
SELECT taskshed.add_task('mallory.loaded', task_id => 'loaded')});
	await_no_task($node, 'loaded');
	is( $node->safe_psql(
			'postgres', q{
			SELECT result FROM taskshed.runs WHERE task_id = 'loaded' AND status = 'succeeded'}
		),
		'off',
		'a worker loads session_preload_libraries, as sessions do');
}

done_testing();
