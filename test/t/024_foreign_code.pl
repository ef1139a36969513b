
# Whoever schedules a task for somebody else runs none of that role's code: the
# constraints of its domains are checked when the task runs, as its owner.
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

my $node = taskshed_node('foreign_code');

$node->safe_psql(
	'postgres', q{
CREATE ROLE alice LOGIN;
CREATE ROLE mallory LOGIN;
CREATE TABLE spied (who text, what text);
GRANT ALL ON spied TO PUBLIC;
CREATE SCHEMA trap AUTHORIZATION mallory;
SET ROLE mallory;
GRANT USAGE, CREATE ON SCHEMA trap TO PUBLIC;
CREATE FUNCTION trap.spy(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.spied VALUES (session_user || '/' || current_user, what);
	RETURN true;
END $$;
-- (It says that it is IMMUTABLE, so that planning would call it.)
CREATE FUNCTION trap.spy_default() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM trap.spy('default');
	RETURN 1;
END $$;
CREATE DOMAIN trap.d AS integer CHECK (trap.spy('domain'));
CREATE DOMAIN trap.dd AS trap.d;
CREATE DOMAIN trap.da AS integer[] CHECK (trap.spy('domain of array'));
CREATE TYPE trap.c AS (x trap.d, y text);
CREATE TYPE trap.cc AS (c trap.c, cs trap.c[]);
CREATE TABLE trap.t (x trap.d);
CREATE TYPE trap.r AS RANGE (subtype = trap.d, subtype_opclass = int4_ops, multirange_type_name = trap.mr);
CREATE FUNCTION trap.f_d(v trap.d) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_dd(v trap.dd) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_das(v trap.d[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_da(v trap.da) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_c(v trap.c) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_cc(v trap.cc) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_ccs(v trap.cc[]) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_t(v trap.t) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_r(v trap.r) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_mr(v trap.mr) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_variadic(VARIADIC v trap.d[]) RETURNS void LANGUAGE sql AS '';
-- domains and types of trusted people that are made of hers
RESET ROLE;
CREATE SCHEMA good;
GRANT USAGE, CREATE ON SCHEMA good TO PUBLIC;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE DOMAIN good.d AS trap.d;
CREATE DOMAIN good.ddd AS good.d;
CREATE DOMAIN good.das AS trap.d[];
CREATE TYPE good.c AS (x good.ddd[]);
CREATE DOMAIN good.dc AS good.c;
CREATE TYPE good.r AS RANGE (subtype = good.d, subtype_opclass = int4_ops, multirange_type_name = good.mr);
CREATE DOMAIN good.dmr AS good.mr;
SET ROLE mallory;
CREATE FUNCTION trap.g_d(v good.d) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.g_ddd(v good.ddd) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.g_das(v good.das) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.g_c(v good.c) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.g_dc(v good.dc) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.g_dmr(v good.dmr) RETURNS void LANGUAGE sql AS '';
CREATE PROCEDURE trap.p_d(v trap.d) LANGUAGE sql AS '';
CREATE FUNCTION trap.f_default(v integer, o integer DEFAULT trap.spy_default()) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION trap.f_body(v integer) RETURNS boolean LANGUAGE sql AS $$SELECT trap.spy('body')$$;
});

my %calls = (
	f_d        => '1',
	f_dd       => '1',
	f_das      => '[1, 2]',
	f_da       => '[1]',
	f_c        => '{"x": 1}',
	f_cc       => '{"c": {"x": 1}, "cs": [{"x": 1}]}',
	f_ccs      => '[{"c": {"x": 1}}]',
	f_t        => '{"x": 1}',
	f_r        => '"[1,2)"',
	f_mr       => '"{[1,2)}"',
	f_variadic => '[1]',
	g_d        => '1',
	g_ddd      => '1',
	g_das      => '[1, 2]',
	g_c        => '{"x": [1]}',
	g_dc       => '{"x": [1]}',
	g_dmr      => '"{[1,2)}"',
	p_d        => '1',
	f_default  => '1',
	f_body     => '1');

sub spied
{
	my $spied = $node->safe_psql('postgres',
		q{SELECT coalesce(string_agg(DISTINCT who, ', '), 'nobody') FROM spied}
	);

	$node->safe_psql('postgres', 'TRUNCATE spied');
	return $spied;
}

my %sessions;
foreach my $who ('postgres', 'alice', 'mallory')
{
	$sessions{$who} = session($node);
	$sessions{$who}->query("SET SESSION AUTHORIZATION $who");
}

foreach my $call (sort keys %calls)
{
	my $kwargs = qq({"v": $calls{$call}});

	foreach my $how (
		[ 'postgres', ", owner => 'mallory'", 'mallory' ],
		[ 'postgres', ", owner => 'alice'",   'alice' ],
		[ 'alice',    '',                     'alice' ],
		[ 'mallory',  '',                     'mallory' ])
	{
		my ($who, $owner, $as) = @$how;
		my $what = "$call by $who$owner";

		is( $sessions{$who}->query(
				"SELECT taskshed.add_task('trap.$call', '2100-01-01', kwargs => '$kwargs', task_id => 'task'$owner)"
			),
			'task',
			"$what is scheduled");
		is( $sessions{$who}->query(
				qq{SELECT taskshed.add_tasks('[{"callback": "trap.$call", "run_at": "2100-01-01", "task_id": "task", "kwargs": $kwargs}]')}
			),
			'{task}',
			"$what is scheduled with others") if $owner eq '';
		# (Her own domains, she may check.)
		is(spied(), 'nobody', "$what: nobody's code runs")
		  if $who ne 'mallory';
		spied();
		is( $sessions{$who}->query(
				"SELECT taskshed.update_execution_time('task', now()$owner)"),
			't',
			"$what is due");
		await(
			$node,
			q{SELECT count(*) FILTER (WHERE state <> 'failed') = 0 FROM taskshed.tasks},
			"$what has run");
		is( $node->safe_psql(
				'postgres',
				'SELECT last_sqlstate, last_error FROM taskshed.tasks'),
			'',
			"$what has not failed");
		# (What is IMMUTABLE, a plan that is kept has done.)
		like(
			spied(),
			$call eq 'f_default' ? qr{^($as/$as|nobody)$} : qr{^$as/$as$},
			"$what: the code runs as the owner");
	}
}

# What the check says is only known then.
$node->safe_psql(
	'postgres', q{
	SET ROLE mallory;
	ALTER DOMAIN trap.d ADD CONSTRAINT small CHECK (VALUE < 5)});
is( $sessions{postgres}->query(
		q{SELECT taskshed.add_task('trap.f_d', kwargs => '{"v": 5}', task_id => 'large', owner => 'mallory')}
	),
	'large',
	'a value that a domain of another role refuses is not refused when scheduled'
);
await(
	$node,
	q{SELECT state = 'failed' FROM taskshed.tasks WHERE task_id = 'large'},
	'it is by the run');
is( $node->safe_psql(
		'postgres', q{SELECT last_sqlstate, last_error FROM taskshed.tasks}),
	'23514|value for domain trap.d violates check constraint "small"',
	'which says why');
like(
	$sessions{mallory}
	  ->query(q{SELECT taskshed.add_task('trap.f_d', kwargs => '{"v": 5}')}),
	qr/value for domain trap.d violates check constraint "small"/,
	'its own role is told at once');
spied();

no_crash($node);
$_->quit foreach values %sessions;
$node->stop;
done_testing();
