
# Moving from pg_cron, the real one: import_pg_cron and export_pg_cron.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my ($sharedir) = `pg_config --sharedir` =~ /(.*)/;
plan skip_all => 'the extension pg_cron is not installed'
  if !-f "$sharedir/extension/pg_cron.control";

# (cron.host: nothing listens on localhost here.)
my $node = taskshed_node(
	'pg_cron', conf => q{
shared_preload_libraries = 'pg_cron, taskshed'
cron.database_name = 'postgres'
cron.use_background_workers = on
});

my $superuser = getpwuid $<;

# Databases with names that psql could misunderstand.
my @databases =
  ('other', q{o'd"d \ :HOST=x $}, "new\nline", 'postgresql://x');

sub quoted
{
	my ($name) = @_;

	return '"' . $name =~ s/"/""/gr . '"';
}

# In a database by its name only: a psql option would take some for connection strings.
sub value_in
{
	my ($database, $sql) = @_;
	my $name = $database =~ s/([\\'])/\\$1/gr;
	my ($out, $err);

	IPC::Run::run(
		[
			'psql', '-XAtq', '-v',
			'ON_ERROR_STOP=1',
			'-d',
			sprintf(
				"host='%s' port=%s dbname='%s'",
				$node->host, $node->port, $name)
		],
		'<',
		\$sql,
		'>',
		\$out,
		'2>',
		\$err) or die "$database: $err";
	chomp $out;
	return $out;
}

$node->safe_psql(
	'postgres', q{
CREATE ROLE app LOGIN;
CREATE ROLE ungranted LOGIN;
CREATE ROLE gone LOGIN;
CREATE ROLE "odd ""r'\ole" LOGIN;
CREATE ROLE dba LOGIN;
GRANT EXECUTE ON PROCEDURE taskshed.execute TO app, dba, "odd ""r'\ole";
});

foreach my $database (@databases)
{
	$node->safe_psql('postgres', 'CREATE DATABASE ' . quoted($database));
	value_in(
		$database,
		q{CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO PUBLIC;
		GRANT EXECUTE ON PROCEDURE taskshed.execute TO app, "odd ""r'\ole"});
}
$node->safe_psql('postgres', 'CREATE DATABASE bare');


# ------------------------------------------------------------------------
# Without pg_cron

foreach my $call ('import_pg_cron()', 'export_pg_cron()')
{
	my (undef, undef, $err) =
	  $node->psql('postgres', "SELECT taskshed.$call", on_error_stop => 0);

	like(
		$err,
		qr/ERROR:  the extension pg_cron is not in this database\nHINT:  .*export_pg_cron\(\)/,
		"$call without pg_cron");
}

# What looks like it may be anybody's.
$node->safe_psql(
	'other', q{
CREATE SCHEMA cron;
CREATE TABLE cron.job (jobid bigint, schedule text, command text, nodename text, nodeport integer, database text, username text, active boolean, jobname text);
INSERT INTO cron.job VALUES (1, '* * * * *', 'SELECT 1', 'localhost', current_setting('port')::integer, 'other', current_user, true, 'evil')}
);
is( psql_as(
		$node, $superuser, 'SELECT taskshed.import_pg_cron(true)', 'other'),
	'55000',
	'a table cron.job that is not of pg_cron is not read');
$node->safe_psql('other', 'DROP SCHEMA cron CASCADE');


# ------------------------------------------------------------------------
# Jobs of all kinds

$node->safe_psql('postgres',
	'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO PUBLIC');

my %job;

# Adds a job as pg_cron has it; returns its number.
sub job
{
	my ($what, %columns) = @_;
	my %all = (
		schedule => '0 3 * * *',
		command  => 'SELECT 1',
		database => 'postgres',
		username => 'app',
		nodename => 'localhost',
		nodeport => $node->port,
		%columns);
	my @names = sort keys %all;

	$job{$what} = query(
		sprintf 'INSERT INTO cron.job (%s) VALUES (%s) RETURNING jobid',
		join(', ', @names),
		join(', ', map { defined $_ ? "\$q\$$_\$q\$" : 'NULL' } @all{@names})
	);
	return;
}

sub no_jobs
{
	query('DELETE FROM cron.job');
	%job = ();
	return;
}

# What an import said of a job.
my %said;

sub import_jobs
{
	my ($arguments, $role) = @_;

	%said = ();
	foreach my $row (
		split /\n/,
		psql_as(
			$node,
			$role || $superuser,
			"SELECT jobid, result, message, hint FROM taskshed.import_pg_cron($arguments)"
		))
	{
		my ($jobid, @rest) = split /\|/, $row, -1;
		my ($what) = grep { $job{$_} == $jobid } keys %job;

		$said{$what} = join ' | ', grep { $_ ne '' } @rest;
	}
	return join ', ', map { "$_: $said{$_}" } sort keys %said;
}

my $odd_command =
  qq{SELECT 'it''s "odd" \\ :HOST \$\$ %s',\n\t'\x{c3}\x{bc}'};

$node->safe_psql('postgres',
	"SET ROLE app; SELECT cron.schedule('vacuum', '0 3 * * *', 'VACUUM ledger')"
);
$job{vacuum} = query(q{SELECT jobid FROM cron.job WHERE jobname = 'vacuum'});
job('unnamed', schedule => '*/5 * * * 1-5');
job('odd', command => $odd_command, jobname => qq{it's "odd" \\ %s});
job('of odd',
	command  => $odd_command,
	jobname  => 'vacuum',
	username => q{odd "r'\ole});
job('month end',     schedule => '0 0 $ * *', jobname => 'month end');
job('off',           jobname  => 'off',       active  => 'false');
job('reboot',        schedule => '@reboot');
job('step',          schedule => '5/15 * * * *');
job('nth',           schedule => '0 0 * * fri#2');
job('sixth',         schedule => '0 9 * * 1 2');
job('step of range', schedule => '5-59/15,7 */2 1-9/3,2 * 1');
job('ungranted',     username => 'ungranted');
job('gone',          username => 'gone');
job('remote',        nodename => 'node1');
job('taken',         jobname  => 'taken');
job('long',          jobname  => 'x' x 63);
my $next = $job{long} + 2;
job('like', jobname => "pg_cron_$next");
job('liked');
is($job{liked}, $next, 'a job has the name that another is given');
job('elsewhere', database => 'other');
$node->safe_psql('postgres', 'DROP ROLE gone');
$node->safe_psql(
	'postgres', q{
SELECT taskshed.add_task('note', '2100-01-01', '{"what": "mine"}', task_id => 'taken', owner => 'app')}
);

# Each is imported or not, whatever the others are.
my $taken =
  'refused | role "app" already has a task "taken" that was not imported';
my $grant =
  'refused | role "ungranted" may not run commands as tasks | GRANT USAGE ON SCHEMA taskshed TO ungranted; GRANT EXECUTE ON PROCEDURE taskshed.execute TO ungranted;';
my %expected = (
	vacuum          => 'imported',
	unnamed         => 'imported',
	odd             => 'imported',
	'of odd'        => 'imported',
	'month end'     => 'imported',
	off             => 'imported | the job is not active',
	step            => 'refused | pg_cron does not read the whole schedule',
	nth             => 'refused | pg_cron does not read the whole schedule',
	sixth           => 'refused | pg_cron does not read the whole schedule',
	'step of range' => 'imported',
	ungranted       => $grant,
	gone            => 'refused | role "gone" does not exist',
	taken           => $taken,
	long            => 'imported',
	like            => 'imported',
	liked           => 'refused | another job has this name');

sub expect
{
	my ($name, %changes) = @_;
	my %all    = (%expected, %changes);
	my $reboot = delete $said{reboot};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(
		$reboot,
		qr/^refused \| .*\@reboot/,
		"$name: a schedule that is no time is refused");
	is_deeply(\%said, \%all, $name);
	return;
}

# In background workers, which are all here, a job's host does not count.
my $tasks = q{SELECT count(*) FROM taskshed.tasks WHERE group_id = 'pg_cron'};
query('BEGIN; SELECT count(*) FROM taskshed.import_pg_cron(true); ROLLBACK');
is(query($tasks), '0', 'rolled back, nothing was imported');
is(query('SELECT count(*) FROM cron.job WHERE NOT active'),
	'1', 'and nothing switched off');
import_jobs('');
expect('imported', remote => 'imported');
$node->safe_psql('postgres',
	"SELECT taskshed.remove_tasks(group_id => 'pg_cron', owner => 'app')");

# With connections, it does.
$node->append_conf('postgresql.conf', 'cron.use_background_workers = off');
$node->restart;
$expected{remote} =
  'refused | the job runs on another server, node1 port ' . $node->port;
import_jobs('');
expect('imported with connections', 'of odd' => 'unchanged');

my $all = q{
	SELECT string_agg(concat_ws(' ', task_id, callback, schedule, timezone, group_id, state, kwargs), E'\n'
		ORDER BY task_id COLLATE "C")
	FROM taskshed.tasks WHERE owner = 'app' AND task_id IN ('vacuum', 'month end', 'off', 'pg_cron_}
  . $job{unnamed} . q{')};
is( query($all),
	qq{month end taskshed.execute 0 0 \$ * * GMT pg_cron paused {"command": "SELECT 1"}
off taskshed.execute 0 3 * * * GMT pg_cron paused {"command": "SELECT 1"}
pg_cron_$job{unnamed} taskshed.execute */5 * * * 1-5 GMT pg_cron paused {"command": "SELECT 1"}
vacuum taskshed.execute 0 3 * * * GMT pg_cron paused {"command": "VACUUM ledger"}},
	'they are paused tasks of the same schedules');
is( query(
		q{
		SELECT count(*) FROM taskshed.tasks t JOIN cron.job j
		ON j.jobname = t.task_id AND j.username = t.owner AND j.schedule = t.schedule
			AND jsonb_build_object('command', j.command) = t.kwargs
		WHERE t.task_id IN (E'it\'s "odd" \\\\ %s', 'vacuum')}),
	'3',
	'also with odd names');
is( query(q{SELECT kwargs->>'what' FROM taskshed.fetch_task('taken', 'app')}),
	'mine', 'a task of that name is left alone');

# Once more: nothing happens.
my $before =
  query('SELECT jsonb_agg(t ORDER BY task_id) FROM taskshed.tasks t');
my %again =
  map { $_ => $expected{$_} =~ s/^imported/unchanged/r } keys %expected;
import_jobs('');
expect('imported again', %again);
is(query('SELECT jsonb_agg(t ORDER BY task_id) FROM taskshed.tasks t'),
	$before, 'that changes nothing');

# An imported task is the command, as its owner.
query(q{SELECT taskshed.run_tasks(array['vacuum'], owner => 'app')});
await($node,
	q{SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = 'vacuum')},
	'it has run');
is( query(
		q{SELECT status, callback FROM taskshed.runs WHERE task_id = 'vacuum'}
	),
	'succeeded|taskshed.execute',
	'it runs at top level');


# ------------------------------------------------------------------------
# What changes in pg_cron before it is switched over

query(
	"SELECT cron.alter_job($job{vacuum}, schedule := '30 3 * * *');
	UPDATE cron.job SET command = 'SELECT 2' WHERE jobid IN ($job{'month end'}, $job{off})"
);
query(
	q{
	SELECT taskshed.resume_task('month end', 'app');
	SELECT taskshed.add_task('taskshed.execute', schedule => '1 1 1 1 *', kwargs => '{"command": "SELECT 3"}',
		task_id => 'off', group_id => 'pg_cron', owner => 'app')}
);
my $differs = 'the task has another schedule or command';
my %changed = (
	%again,
	vacuum      => "unchanged | $differs",
	'month end' => "unchanged | $differs");
import_jobs('');
expect('jobs that have changed', %changed);
is( query(
		q{
		SELECT string_agg(concat_ws(' ', task_id, schedule, kwargs->>'command', state), ', ' ORDER BY task_id)
		FROM taskshed.tasks WHERE owner = 'app' AND task_id IN ('vacuum', 'month end', 'off')}
	),
	'month end 0 0 $ * * SELECT 1 scheduled, off 1 1 1 1 * SELECT 3 paused, vacuum 0 3 * * * VACUUM ledger paused',
	'their tasks stay as they are');
import_jobs('true');
like(
	$said{vacuum},
	qr/^unchanged \| the job stays active: \Q$differs\E \| Remove the task/,
	'they are not switched over');
is( query(
		"SELECT count(*) FROM cron.job WHERE active AND jobid IN ($job{vacuum}, $job{'month end'})"
	),
	'2',
	'but stay active');

# Back to where it was.
query(
	"SELECT taskshed.remove_tasks(group_id => 'pg_cron', owner => owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o;
	UPDATE cron.job SET active = jobid <> $job{off}"
);
import_jobs('');
expect('removed and imported anew');


# ------------------------------------------------------------------------
# For others

# From 1.5 on pg_cron hides the zone of the schedules, without which they mean nothing.
my $hides_zone =
  query(q{SELECT count(*) FROM pg_settings WHERE name = 'cron.timezone'});
SKIP:
{
	skip 'this pg_cron has no cron.timezone', 2 if !$hides_zone;
	foreach my $call ('import_pg_cron(true)', 'export_pg_cron()')
	{
		is(psql_as($node, 'app', "SELECT taskshed.$call"),
			'42501', "$call without the right to see cron.timezone");
	}
}
query('GRANT pg_read_all_settings TO app, ungranted, dba');

is( import_jobs('', 'ungranted'),
	"ungranted: $grant",
	'a role without that right imports nothing');
import_jobs('true', 'app');
is( join(' ', sort keys %said),
	join(' ', sort grep { !/^(of odd|ungranted|gone|elsewhere)$/ } keys %job),
	'a role imports its own jobs');
like(
	$said{unnamed},
	qr/^unchanged \| the job stays active: permission denied for table job/,
	'and needs the right to switch them off');
is( query(
		"SELECT state FROM taskshed.tasks WHERE task_id = 'pg_cron_$job{unnamed}'"
	),
	'paused',
	'without it the task stays paused');

# Roles whose tasks one cannot see are not acted for.
query(
	$node->pg_version >= 16
	? 'GRANT app TO dba WITH INHERIT FALSE'
	: 'GRANT app TO dba; ALTER ROLE dba NOINHERIT');
query('CREATE POLICY all_jobs ON cron.job FOR SELECT TO dba USING (true)');
SKIP:
{
	skip 'a role that inherits nothing does not see cron.timezone', 1
	  if $hides_zone && $node->pg_version < 16;
	import_jobs('', 'dba');
	is( $said{vacuum},
		'refused | permission denied for tasks of role "app"',
		'not for a role whose privileges one does not have');
}
query(
	'DROP POLICY all_jobs ON cron.job; REVOKE app FROM dba; ALTER ROLE dba INHERIT'
);


# ------------------------------------------------------------------------
# Switching over

# Two have come due meanwhile, which pg_cron has seen to.
query(
	"SELECT taskshed.update_execution_times(array[('vacuum', now() - interval '1 day'),
		('pg_cron_$job{unnamed}', now() - interval '1 day')]::taskshed.task_execution_time[], 'app')"
);
query(
	'GRANT EXECUTE ON FUNCTION cron.alter_job(bigint, text, text, text, text, boolean) TO app'
);
my %switched =
  map { $_ => $again{$_} =~ s/^unchanged$/switched/r } keys %again;
$switched{'month end'} = 'switched';
import_jobs('true', 'app');
is($said{vacuum}, 'switched', 'its owner switches a job');
is(query("SELECT active FROM cron.job WHERE jobid = $job{vacuum}"),
	'f', 'it is off in pg_cron');
import_jobs('true');
expect(
	'switched by a superuser',
	map {
		$_ => $switched{$_} eq 'switched' && $_ ne 'of odd'
		  ? 'unchanged | the job is not active'
		  : $switched{$_}
	} keys %switched);
is( query(
		q{
		SELECT string_agg(concat_ws(' ', j.jobid, j.active, t.state, t.run_at > now()), ', ' ORDER BY jobid)
		FROM cron.job j LEFT JOIN taskshed.tasks t ON t.owner = j.username AND
			t.task_id = coalesce(j.jobname, 'pg_cron_' || j.jobid) AND t.group_id = 'pg_cron'
		WHERE j.database = 'postgres'}),
	join(
		', ',
		map {
				$_ eq 'off'   ? "$job{$_} f paused t"
			  : $_ eq 'liked' ? "$job{$_} t scheduled t"
			  : $switched{$_} =~ /^refused/ || $_ eq 'reboot' ? "$job{$_} t"
			  : "$job{$_} f scheduled t"
		} sort { $job{$a} <=> $job{$b} }
		  grep { $_ ne 'elsewhere' } keys %job),
	'each job is on in one of the two');
is(query(q{SELECT count(*) FROM taskshed.runs WHERE group_id = 'pg_cron'}),
	'1', 'and what had come due was not run once more');

# What was switched over is ours from then on.
query(q{SELECT taskshed.pause_task('vacuum', 'app')});
import_jobs('true');
is(query(q{SELECT state FROM taskshed.fetch_task('vacuum', 'app')}),
	'paused', 'a task that was paused since stays so');
query("SELECT cron.alter_job($job{vacuum}, active := true)");
import_jobs('true');
is($said{vacuum}, 'switched', 'and can be switched once more');

# Without alter_job, which older versions do not have.
query("SELECT cron.alter_job($job{long}, active := true)");
query(
	'ALTER EXTENSION pg_cron DROP FUNCTION cron.alter_job; ALTER FUNCTION cron.alter_job RENAME TO alter_job_'
);
import_jobs('true');
is($said{long}, 'switched', 'without alter_job');
is(query('SELECT active FROM cron.job WHERE jobid = ' . $job{long}),
	'f', 'the table is changed');

# A trap in the place of alter_job is not called.
query(
	q{
	CREATE FUNCTION cron.alter_job(bigint, text, text, text, text, boolean) RETURNS void LANGUAGE plpgsql AS
		'BEGIN RAISE ''trapped''; END'}
);
query("UPDATE cron.job SET active = true WHERE jobid = $job{long}");
import_jobs('true');
is($said{long}, 'switched',
	'a function that is not of pg_cron is not called');
query(
	'DROP FUNCTION cron.alter_job; ALTER FUNCTION cron.alter_job_ RENAME TO alter_job; ALTER EXTENSION pg_cron ADD FUNCTION cron.alter_job'
);


# ------------------------------------------------------------------------
# docs/pg_cron.md: its blocks that 080_pages.pl leaves out, since they need pg_cron

# What psql prints, without its layout.
sub normal
{
	my ($text) = @_;

	return join "\n", grep { $_ ne '' && !/^[-+]+$|^\(\d+ rows?\)$/ }
	  map { s/[ |]+/ /gr =~ s/^ | $//gr } split /\n/, $text;
}

no_jobs();
query(
	q{
	SELECT taskshed.remove_all_tasks(owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o;
	ALTER SEQUENCE cron.jobid_seq RESTART;
	REVOKE EXECUTE ON PROCEDURE taskshed.execute FROM app;
	CREATE TABLE sessions (expires timestamptz);
	CREATE ROLE reports LOGIN});
job('purge',
	jobname => 'purge',
	command => 'DELETE FROM sessions WHERE expires < now()');
job('minutes', schedule => '*/5 * * * *', command => 'VACUUM sessions');
job('monthly',
	jobname  => 'monthly',
	schedule => '0 0 1 * *',
	command  => 'ANALYZE',
	username => 'reports',
	active   => 'false');

my $page = slurp_file('docs/pg_cron.md');
my $n    = 0;
while ($page =~ /^```pgsql\n(.*?)^```\n(?:```text\n(.*?)^```\n)?/msg)
{
	my ($sql, $expected) = ($1, $2);
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[
			'psql',      '-X', '-q', '-h', $node->host, '-p',
			$node->port, '-d', 'postgres'
		],
		'<',
		\"SET timezone = 'UTC';\n$sql",
		'>',
		\$out,
		'2>',
		\$err);
	is($err, '', "docs/pg_cron.md: $sql");
	next if !defined $expected;
	my $pattern = join '.*', map { quotemeta } split /\xe2\x80\xa6/,
	  normal($expected), -1;
	like(normal($out), qr/\A$pattern\z/, 'prints that');
	$n++;
}
is($n, 5, 'the page has these examples');
query('GRANT EXECUTE ON PROCEDURE taskshed.execute TO app');


# ------------------------------------------------------------------------
# What jobs do

# Of what real jobs are like, all is taken: several commands, also with settings in front, none.
no_jobs();
query(
	q{
	SELECT taskshed.remove_all_tasks(owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o;
	TRUNCATE ledger});
my %several = (
	'two'      => q{SELECT public.note('two'); SELECT public.note('two');},
	'on lines' =>
	  qq{\n  SELECT public.note('on lines'); SELECT public.note('on lines');\n},
	'with limit' =>
	  q{SET statement_timeout = '30s'; SELECT public.note('with limit')},
	'temporary' =>
	  q{TRUNCATE sessions; CREATE TEMPORARY TABLE tmp AS SELECT now() AS n; INSERT INTO sessions SELECT n FROM tmp; DROP TABLE tmp; SELECT public.note('temporary')},
	'in blocks' =>
	  q{BEGIN; SELECT public.note('in blocks'); COMMIT; BEGIN; DELETE FROM ledger; ROLLBACK},
	'nothing' => q{-- nothing});
query('GRANT ALL ON sessions TO PUBLIC; ALTER TABLE sessions OWNER TO app');
job($_,     jobname => $_,     command => $several{$_}) foreach keys %several;
job('open', jobname => 'open', command => 'BEGIN; DELETE FROM ledger');
import_jobs('true');
is_deeply(
	\%said,
	{
		(map { $_ => 'switched' } keys %several),
		open =>
		  'refused | command leaves a transaction block open | End it with COMMIT.'
	},
	'several commands are imported');
query(q{SELECT taskshed.run_tasks(group_id => 'pg_cron', owner => 'app')});
await(
	$node,
	q{SELECT count(*) = 6 FROM taskshed.runs WHERE group_id = 'pg_cron' AND task_id IN ('two', 'on lines', 'with limit', 'temporary', 'in blocks', 'nothing')},
	'they have run');
is( query(
		q{SELECT string_agg(what, ', ' ORDER BY what COLLATE "C") FROM ledger}
	),
	'in blocks, on lines, on lines, temporary, two, two, with limit',
	'and each of them did what it says');

# What bounds a job there bounds the task here: the statement_timeout of its owner's sessions.
no_jobs();
query(
	q{
	SELECT taskshed.remove_all_tasks('app');
	CREATE ROLE of_role LOGIN;
	CREATE ROLE of_role_here LOGIN;
	CREATE ROLE of_role_there LOGIN;
	CREATE ROLE unbounded LOGIN;
	GRANT EXECUTE ON PROCEDURE taskshed.execute TO of_role, of_role_here, of_role_there, unbounded;
	ALTER DATABASE postgres SET statement_timeout = '20min';
	ALTER ROLE of_role SET statement_timeout = 300;
	ALTER ROLE of_role_here SET statement_timeout = '30s';
	ALTER ROLE of_role_here IN DATABASE postgres SET statement_timeout = '1.5min';
	ALTER ROLE of_role_there IN DATABASE other SET statement_timeout = '40s';
	ALTER ROLE unbounded SET statement_timeout = 0});
foreach
  my $role ('app', 'of_role', 'of_role_here', 'of_role_there', 'unbounded')
{
	job($role,
		jobname  => $role,
		username => $role,
		command  => 'SELECT pg_sleep(60)');
	job("$role there",
		jobname  => 'there',
		username => $role,
		database => 'other');
}
job('own',
	jobname => 'own',
	command => q{SET statement_timeout = '1h'; SELECT 1});
import_jobs('');
is( query(
		q{SELECT string_agg(concat_ws(' ', task_id, timeout), ', ' ORDER BY task_id COLLATE "C") FROM taskshed.tasks}
	),
	'app 00:20:00, of_role 00:00:00.3, of_role_here 00:01:30, of_role_there 00:20:00, own, unbounded',
	'the timeout is that of the role here, of the role, or of the database');
is( join(', ',
		map    { /timeout => (\S+), .*owner => '(\w+)'/ ? "$2 $1" : () }
		  grep { /'there'/ } split /\n/,
		query('SELECT taskshed.export_pg_cron()')),
	q{app NULL, of_role '00:00:00.3', of_role_here '00:00:30', of_role_there '00:00:40', unbounded NULL},
	'and so it is in a script for another');

# The mistake to guard against: leaving the last job's in the transaction of whoever asks.
foreach my $call ('import_pg_cron()', 'export_pg_cron()')
{
	is( query(
			"BEGIN; SET LOCAL statement_timeout = '17min'; SELECT count(*) > 0 FROM taskshed.$call;
			SHOW statement_timeout; COMMIT; SHOW statement_timeout"
		),
		"t\n17min\n20min",
		"$call leaves the caller's statement_timeout alone");
}
query(q{SELECT taskshed.run_tasks(array['of_role'], owner => 'of_role')});
await(
	$node,
	q{SELECT EXISTS (SELECT FROM taskshed.runs WHERE task_id = 'of_role' AND status = 'timeout')},
	'it ends a run');

# Where nobody has one, that of the server counts.
query(
	q{
	ALTER DATABASE postgres RESET statement_timeout;
	ALTER SYSTEM SET statement_timeout = '25min';
	SELECT taskshed.remove_all_tasks(owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o}
);
$node->reload;
await(
	$node,
	q{SELECT current_setting('statement_timeout') = '25min'},
	'the server has one');
import_jobs('');
is( query(
		q{SELECT string_agg(concat_ws(' ', task_id, timeout), ', ' ORDER BY task_id COLLATE "C") FROM taskshed.tasks}
	),
	'app 00:25:00, of_role 00:00:00.3, of_role_here 00:01:30, of_role_there 00:25:00, own, unbounded',
	'the timeout is that of the server');
is(query(q{SELECT current_setting('statement_timeout')}),
	'25min', 'and the settings stay as they are');
is( query(
		q{BEGIN; SELECT count(*) > 0 FROM taskshed.import_pg_cron();
		SELECT setting || ' ' || source FROM pg_settings WHERE name = 'statement_timeout'; COMMIT}
	),
	"t\n1500000 configuration file",
	'also within the transaction');
query('ALTER SYSTEM RESET statement_timeout');
$node->reload;

# What knows of jobs only is pointed out.
no_jobs();
query(
	q{SELECT taskshed.remove_all_tasks(owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o}
);
my %mentions = (
	q{DELETE FROM cron.job_run_details WHERE end_time < now()} =>
	  'job_run_details',
	q{SELECT count(*) FROM "cron" . "job" WHERE active} => 'job',
	q{SELECT CRON.Unschedule(7)}                        => 'unschedule',
	q{SELECT 'cron.jobs', 1 AS cron_job}                => undef);
job($_, command => $_) foreach keys %mentions;
job('off',
	command => 'DELETE FROM cron.job',
	active  => 'false');
import_jobs('');
is_deeply(
	\%said,
	{
		off =>
		  'imported | the job is not active; the command uses cron.job, which knows nothing of tasks | Tasks are in taskshed.tasks, and what has run is in taskshed.runs, which is kept in bounds by itself.',
		map {
			$_ => defined $mentions{$_}
			  ? "imported | the command uses cron.$mentions{$_}, which knows nothing of tasks | Tasks are in taskshed.tasks, and what has run is in taskshed.runs, which is kept in bounds by itself."
			  : 'imported'
		} keys %mentions
	},
	'a command that uses what is of pg_cron is pointed out');
like(
	query('SELECT taskshed.export_pg_cron()'),
	qr/^-- its command uses cron\.job_run_details, which knows nothing of tasks: see taskshed\.tasks and taskshed\.runs$/m,
	'in a script, too');
query(
	q{SELECT taskshed.remove_all_tasks(owner) FROM (SELECT DISTINCT owner FROM taskshed.tasks) AS o}
);


# ------------------------------------------------------------------------
# A script for all databases, made and run by the commands of docs/pg_cron.md

no_jobs();
foreach my $database (@databases, 'bare')
{
	job("1 $database", database => $database);
	job("2 $database",
		database => $database,
		command  => $odd_command,
		jobname  => qq{$database it's "odd" \\ %s},
		username => q{odd "r'\ole},
		schedule => '0 0 $ * *',
		active   => 'false');
}
job('remote', nodename => "node\n1", database => 'other');
job('bad',    database => 'other',   schedule => 'x');
job('lost',   database => "long 'gone\\");
job('closed', database => 'closed');
query('CREATE DATABASE closed ALLOW_CONNECTIONS false');

# Who could put functions in front of others in a database does not get at the script's rights.
value_in(
	'other', q{
	ALTER DATABASE other SET search_path = evil, pg_catalog;
	CREATE SCHEMA evil;
	CREATE FUNCTION evil.jsonb_build_object(text, text) RETURNS jsonb LANGUAGE plpgsql AS
		'BEGIN RAISE ''trapped''; END'}
);

my $script = $node->basedir . '/jobs.sql';
my ($export, $import) = map { s/\bcron_database\b/postgres/r }
  $page =~ /^```sh\n(psql .*)\n(psql .*)\n```$/m;

# What a shell command that stands on the page says on stderr.
sub in_shell
{
	my ($command) = @_;
	my ($out, $err);

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PSQLRC} = '/dev/null';
	IPC::Run::run([ 'sh', '-c', $command ],
		'<', \'', '>', \$out, '2>', \$err,
		init => sub { chdir $node->basedir or die "chdir: $!" });
	return $err;
}

is(in_shell($export), '', 'export_pg_cron');
note(slurp_file($script));

my $made = q{
	SELECT coalesce(string_agg(concat_ws(' ', owner, task_id, state, group_id, schedule, timezone, kwargs), E'\n' ORDER BY owner), '')
	FROM taskshed.tasks};
foreach my $run (1, 2)
{
	my $err   = in_shell($import);
	my @lines = grep { !/^(DETAIL|HINT):/ } split /\n/, $err;
	is(scalar(@lines), 4, 'four things cannot be done') or diag($err);
	like($err, qr/ERROR:  schedule "x" must have/, 'a bad schedule is one');
	like(
		$err,
		qr/^bare: no extension taskshed here/m,
		'a database without taskshed another');
	foreach my $database ("long 'gone\\", 'closed')
	{
		like(
			$err,
			qr/^\Q$database\E: no such database to connect to/m,
			"$database does not end the script");
	}
	foreach my $database (@databases)
	{
		is( value_in($database, $made),
			"app pg_cron_$job{\"1 $database\"} paused pg_cron 0 3 * * * GMT {\"command\": \"SELECT 1\"}\n"
			  . qq{odd "r'\\ole $database it's "odd" \\ %s paused pg_cron 0 0 \$ * * GMT }
			  . query(
				"SELECT jsonb_build_object('command', \$q\$$odd_command\$q\$)"
			  ),
			"run $run of the script in $database");
	}
}
my $text = slurp_file($script);
like(
	$text,
	qr/^-- needed: GRANT USAGE ON SCHEMA taskshed TO app; GRANT EXECUTE/m,
	'it says which rights are needed');
like(
	$text,
	qr/^-- job \d+ is left out: the job runs on another server, node 1 port/m,
	'and what is left out');
like($text, qr/^-- job \d+, which is not active$/m, 'and what is not active');

# Whoever exports sees what pg_cron shows.
is(psql_as($node, 'dba', 'SELECT count(*) FROM taskshed.export_pg_cron()'),
	'2', 'jobs of others are not exported');


# ------------------------------------------------------------------------
# Its time zone, from 1.5 on a setting

SKIP:
{
	skip 'this pg_cron has no cron.timezone', 1 if !$hides_zone;
	$node->append_conf('postgresql.conf', q{cron.timezone = 'Asia/Tokyo'});
	$node->restart;
	job('tokyo', jobname => 'tokyo');
	import_jobs('');
	is(query(q{SELECT timezone FROM taskshed.fetch_task('tokyo', 'app')}),
		'Asia/Tokyo', 'the zone is that of pg_cron');
}


# ------------------------------------------------------------------------
# From one to the other, each minute once

$node->append_conf('postgresql.conf', 'cron.use_background_workers = on');
no_jobs();
query('TRUNCATE ledger');
job('minutely',
	jobname  => 'minutely',
	schedule => '* * * * *',
	username => $superuser,
	command  =>
	  'INSERT INTO public.ledger (what) SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()'
);
$node->restart;
await(
	$node,
	q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'pg_cron')},
	'pg_cron has run it');
import_jobs('true');
is($said{minutely}, 'switched', 'it is switched over');
await(
	$node,
	q{SELECT EXISTS (SELECT FROM ledger WHERE what = 'taskshed worker')},
	'taskshed has run it');
is( query(
		q{
		SELECT count(*) = 1 + extract(epoch FROM date_trunc('minute', max(started)) - date_trunc('minute', min(started))) / 60,
			count(DISTINCT date_trunc('minute', started)) = count(*)
		FROM ledger}),
	't|t',
	'no minute was left out, and none had it twice');


# A setting that pg_cron does not know is not heeded, and without pg_cron nothing is known.
$node->append_conf('postgresql.conf',
	q{shared_preload_libraries = 'taskshed'});
$node->restart;
is(psql_as($node, $superuser, 'SELECT taskshed.import_pg_cron()'),
	'55000', 'pg_cron has to be loaded');

$node->stop;
done_testing();
