
# Whoever owns a database and is no superuser can dump it with the extension in
# it, and let roles in; what is dumped is restored, with or without the tasks.
# And whatever the default privileges are of the superuser who creates the
# extension, it grants the same.  (The mistake is to rely on rights that somebody
# else's tools, or somebody else's defaults, do not have.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $node = taskshed_node('owner');
my $dump = $node->basedir . '/dump';

sub as
{
	return psql_as($node, @_);
}

$node->safe_psql(
	'postgres', q{
CREATE ROLE owns LOGIN;
CREATE ROLE app LOGIN;
CREATE ROLE guest LOGIN;
CREATE DATABASE shop OWNER owns});
$node->safe_psql(
	'shop', q{
CREATE EXTENSION taskshed;
CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS ''});

# USAGE is the owner's to give.
is(as('app', q{SELECT taskshed.next_wakeup()}, 'shop'),
	'42501', 'nobody else has USAGE at first');
is(as('owns', 'GRANT USAGE ON SCHEMA taskshed TO app', 'shop'),
	'', 'the owner of the database gives it');
is( as( 'app', q{
SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "Xyzzy"}', task_id => 'once');
SELECT taskshed.add_task('note', schedule => '0 3 * * *', kwargs => '{"what": "x"}', task_id => 'nightly', paused => true)},
		'shop'),
	"once\nnightly",
	'... and it is good for scheduling');
is( as( 'app',
		'GRANT USAGE ON SCHEMA taskshed TO guest; SELECT has_schema_privilege($$guest$$, $$taskshed$$, $$USAGE$$)',
		'shop'),
	'f',
	'... but not for giving it to others');

# What the owner reads, and what not.
is( as( 'owns',
		q{SELECT count(*), count(*) FILTER (WHERE kwargs->>'what' = 'Xyzzy') FROM _taskshed.task},
		'shop'),
	'2|1',
	'the owner reads the tables');
is( as( 'owns',
		q{ALTER TABLE _taskshed.task ENABLE ROW LEVEL SECURITY}, 'shop'),
	'42501',
	'... and alters none');
is(as('owns', $_, 'shop'), '42501', "... nor: $_")
  foreach (
	'SELECT * FROM _taskshed.run_0',
	'SELECT * FROM _taskshed.home',
	q{UPDATE _taskshed.task SET kwargs = '{}'},
	'DELETE FROM _taskshed.alarm',
	'TRUNCATE _taskshed.callback',
	q{SELECT setval('_taskshed.task_seq', 1)},
	q{SELECT nextval('_taskshed.task_seq')},
	'BEGIN; LOCK TABLE _taskshed.alarm IN ROW EXCLUSIVE MODE',
	'CREATE TABLE taskshed.x ()',
	q{SELECT taskshed.pause_task('once', 'app')});
is(as('owns', 'SELECT count(*) FROM taskshed.tasks', 'shop'),
	'0', '... and the view shows what is theirs');
is(as('guest', 'SELECT count(*) FROM _taskshed.task', 'shop'),
	'42501', 'those who do not own the database do not read them');

# Dumped by the owner, restored by a superuser.
my $tasks  = 'SELECT t FROM _taskshed.task AS t ORDER BY task_id';
my $rights = q{SELECT nspacl FROM pg_namespace WHERE nspname = 'taskshed'};
foreach my $format ('plain', 'custom')
{
	$node->command_ok(
		[
			'pg_dump', '--username',    'owns', "--format=$format",
			'--file',  "$dump.$format", 'shop'
		],
		"the owner's pg_dump, $format");
	$node->safe_psql('postgres', "CREATE DATABASE $format OWNER owns");
	$node->command_ok(
		$format eq 'plain'
		? [
			'psql',            '-X', '-q',            '-v',
			'ON_ERROR_STOP=1', '-f', "$dump.$format", $format
		  ]
		: [
			'pg_restore', '--exit-on-error',
			'--dbname',   $format,
			"$dump.$format"
		],
		"restored, $format");
	is( $node->safe_psql($format, $tasks),
		$node->safe_psql('shop',  $tasks),
		"$format: with its tasks");
	is( $node->safe_psql($format, $rights),
		$node->safe_psql('shop',  $rights),
		"$format: and whom the owner has let in");
	await_status($node, $format, 'held');
	is(as('owns', 'SELECT taskshed.activate()', $format),
		'', "$format: and activated by the owner");
	is( as( 'app',
			q{SELECT string_agg(task_id || ' ' || state, ', ' ORDER BY task_id) FROM taskshed.tasks},
			$format),
		'nightly paused, once scheduled',
		"$format: and they are app's");
}

# The same without the tasks, in the two ways that the manual has.
$node->command_ok(
	[
		'pg_dump', '--username',  'owns', '--exclude-table-data=_taskshed.*',
		'--file',  "$dump.empty", 'shop'
	],
	'a dump without the rows of our tables');
$node->command_ok(
	[
		'pg_dump',   '--username', 'owns',    '-N',
		'_taskshed', '--file',     "$dump.N", 'shop'
	],
	'a dump without the schema of our tables');
foreach my $name ('empty', 'N')
{
	$node->safe_psql('postgres', "CREATE DATABASE \"no_$name\" OWNER owns");
	$node->command_ok(
		[
			'psql',            '-X', '-q',          '-v',
			'ON_ERROR_STOP=1', '-f', "$dump.$name", "no_$name"
		],
		"... is restored: $name");
	is( $node->safe_psql(
			"no_$name", q{
			SELECT count(*) FROM taskshed.tasks;
			SELECT taskshed.add_task('note', now() + interval '1 day', '{"what": "x"}', task_id => 'new');
			SELECT state FROM taskshed.tasks}),
		"0\nnew\nscheduled",
		'... and has no tasks, and takes some, which are not held');
}

# And nothing but the tasks, for a database that has the extension.
$node->command_ok(
	[
		'pg_dump',     '--username', 'owns',       '-t',
		'_taskshed.*', '--file',     "$dump.only", 'shop'
	],
	'a dump of the tasks alone');
unlike(slurp_file("$dump.only"), qr/^CREATE/m, '... has nothing else');
$node->safe_psql('postgres',   'CREATE DATABASE tasks_only OWNER owns');
$node->safe_psql('tasks_only', 'CREATE EXTENSION taskshed');
$node->command_ok(
	[
		'psql',            '-X', '-q',         '-v',
		'ON_ERROR_STOP=1', '-f', "$dump.only", 'tasks_only'
	],
	'... and is restored');
is( $node->safe_psql('tasks_only', $tasks),
	$node->safe_psql('shop',       $tasks),
	'... with the tasks');

# Another owner
$node->safe_psql('postgres', 'ALTER DATABASE shop OWNER TO guest');
is(as('owns', 'SELECT count(*) FROM _taskshed.task', 'shop'),
	'42501', 'who does not own the database any more reads nothing');
$node->command_ok(
	[ 'pg_dump', '--username', 'guest', '--file', "$dump.guest", 'shop' ],
	'and the new one can dump');

# Default privileges that take away, and that give.
my $granted = q{
SELECT string_agg(DISTINCT format('%s: %s to %s', object, a.privilege_type,
	CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END || CASE WHEN a.is_grantable THEN ' *' ELSE '' END), E'\n')
FROM (SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), proowner FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace
	UNION ALL SELECT oid::regclass::text, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)), relowner
		FROM pg_class WHERE relnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND relkind IN ('r', 'v', 'S')
	UNION ALL SELECT oid::regtype::text, coalesce(typacl, acldefault('T', typowner)), typowner
		FROM pg_type WHERE typnamespace IN ('taskshed'::regnamespace, '_taskshed'::regnamespace) AND typcategory <> 'A'
	UNION ALL SELECT nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner FROM pg_namespace WHERE nspname ~ 'taskshed') o (object, acl, owner),
	aclexplode(acl) a WHERE a.grantee <> o.owner};
$node->safe_psql('postgres',  'CREATE DATABASE plain_one OWNER owns');
$node->safe_psql('plain_one', 'CREATE EXTENSION taskshed');
my $meant = $node->safe_psql('plain_one', $granted);
like(
	$meant,
	qr/^taskshed\.add_task\(.*: EXECUTE to PUBLIC$/m,
	'what is granted');
unlike(
	$meant,
	qr/^taskshed\.(?:execute|_start_scheduler|_check_install|_guard)\(.*$/m,
	'and what is not');

foreach my $defaults (
	[
		'takes',
		'ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
		ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC'
	],
	[
		'gives',
		'ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO app, owns, pg_database_owner;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app, pg_database_owner WITH GRANT OPTION;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app, pg_database_owner'
	])
{
	my ($name, $sql) = @{$defaults};

	$node->safe_psql('postgres', "CREATE DATABASE $name OWNER owns");
	$node->safe_psql($name,      "$sql; CREATE EXTENSION taskshed");
	is($node->safe_psql($name, $granted),
		$meant, "where a superuser's default privileges are others: $name");
}
$node->safe_psql('takes',
	'GRANT USAGE ON SCHEMA taskshed TO app; GRANT CREATE ON SCHEMA public TO app'
);
is( as( 'app', q{
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION mine() RETURNS SETOF taskshed.tasks LANGUAGE sql AS 'SELECT * FROM taskshed.fetch_tasks()';
CREATE FUNCTION move(t taskshed.task_execution_time[]) RETURNS integer LANGUAGE sql AS 'SELECT taskshed.update_execution_times(t)';
SELECT taskshed.add_task('nothing', schedule => '@daily', task_id => 'x');
SELECT move(array[('x', now() + interval '1 day')]::taskshed.task_execution_time[]);
SELECT task_id, state FROM mine();
SELECT count(*) FROM taskshed.next_runs(task_id => 'x');
SELECT state FROM taskshed.tasks;
SELECT count(*) FROM taskshed.status;
SELECT taskshed.remove_all_tasks()},
		'takes'),
	"x\n1\nx|scheduled\n5\nscheduled\n1\n1",
	'USAGE is enough to schedule there');
is( as( 'app',
		q{SELECT taskshed.add_task('taskshed.execute', kwargs => '{"command": "SELECT 1"}')},
		'takes'),
	'42501',
	'... but for taskshed.execute');

$node->stop;
done_testing();
