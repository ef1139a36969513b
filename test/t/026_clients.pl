
# The programs of docs/clients.md do what the page says: those for psql, psycopg
# and node-postgres are taken from it and run, where the client is installed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use TaskshedTest;
use Test::More;

my $page = slurp_file("$FindBin::RealBin/../../docs/clients.md");
my %programs;
$programs{$1} = $2 while $page =~ /^```(\w+)\n(.*?)^```$/msg;
is( join(' ', sort keys %programs),
	'go java js python sh sql',
	'the page has a program for each client');

# What each of them is run with, and how to find out whether that is there.  (A
# Python of the distribution has its packages, whichever comes first.)
my %clients = (
	sh     => { run => ['sh'], there => [ 'sh', '-c', 'psql --version' ] },
	python => {
		run   => [ -x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3' ],
		there => [
			-x '/usr/bin/python3' ? '/usr/bin/python3' : 'python3',
			'-c', 'import psycopg'
		]
	},
	js => { run => ['node'], there => [ 'node', '-e', 'require("pg")' ] });

my $node = taskshed_node('clients');
$node->safe_psql('postgres',
	"CREATE ROLE app LOGIN; SET ROLE app; $programs{sql}");

foreach my $language (sort keys %clients)
{
  SKIP:
	{
		my ($out, $err) = ('', '');
		my $there = eval {
			IPC::Run::run($clients{$language}->{there},
				'<', \'', '>', \$out, '2>', \$err);
		};

		if (!$there)
		{
			my ($why) = ($err || $@ || 'not installed') =~
			  /^(.*(?:Error|not found|not installed|file not found).*)$/m;
			skip "$language: the client is not installed ("
			  . ($why || 'it does not start')
			  . ')', 4;
		}

		my $file = "$PostgreSQL::Test::Utils::tmp_check/clients.$language";
		open(my $program, '>', $file) or die "could not write $file: $!";
		print $program $programs{$language};
		close($program) or die "could not write $file: $!";

		local $ENV{PGHOST}     = $node->host;
		local $ENV{PGPORT}     = $node->port;
		local $ENV{PGDATABASE} = 'postgres';
		local $ENV{PGUSER}     = 'app';
		($out, $err) = ('', '');
		ok( IPC::Run::run(
				[ @{ $clients{$language}->{run} }, $file ],
				'<', \'', '>', \$out, '2>', \$err),
			"$language: the program runs");
		is($err, '', "$language: without an error");
		delete local $ENV{PGUSER};
		$out =~ s/[ |]/ /g;
		like(
			$out,
			qr/^monthly-42 scheduled\nreminder-1 paused\nreminder-2 paused$/m,
			"$language: the tasks are there");
		like(
			$out,
			qr/^42883 Did you mean "customer_id"\?$/m,
			"$language: a mistake is told") if $language ne 'sh';
		is( $node->safe_psql(
				'postgres', q{
				SELECT task_id, run_at AT TIME ZONE 'UTC', every, CASE WHEN every IS NOT NULL THEN timezone END, group_id, kwargs FROM taskshed.tasks
				WHERE run_at > '2100-01-01' ORDER BY task_id}),
			"monthly-42|2100-01-01 08:00:00|1 mon|Europe/Berlin||{\"customer_id\": 42}\n"
			  . "reminder-1|2100-03-01 08:00:00|||reminders|{\"customer_id\": 1}\n"
			  . "reminder-2|2100-03-02 08:00:00|||reminders|{\"customer_id\": 2}",
			"$language: as the program says");
		await(
			$node,
			q{SELECT count(*) = 1 FROM outbox WHERE customer_id = 42 AND note = 'it''s due' AND due IS NULL},
			"$language: the first call has been made");
		$node->safe_psql('postgres',
			q{SELECT taskshed.remove_all_tasks(owner => 'app'); TRUNCATE outbox}
		);
	}
}

$node->stop;
done_testing();
