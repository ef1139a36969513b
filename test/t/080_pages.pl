# The chapters in docs/ are true: every block of each is run, in order, as a reader would who has done
# what README.md says up to its first task, and nothing else; how is told in TaskshedPages.pm.
#
# Left out is clients.md, whose programs are run by 026_clients.pl.  Of shell commands those for a dump
# are run, which operations.md has, and by 065_pg_cron.pl those of pg_cron.md.

use strict;
use warnings;
use utf8;
use open ':std', ':encoding(UTF-8)';

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use TaskshedMarkdown qw(read_page blocks prose);
use TaskshedPages    qw(run_page);
use Test::More;

# The pages have a superuser of this name.
$ENV{PGUSER} = 'postgres';

# Who runs servers reads these.
my %as_superuser = map { ("docs/$_.md" => 1) } qw(operations troubleshooting);

# A server that loads the library.
sub server
{
	my ($name) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);

	$server->init(extra => [ '-U', 'postgres' ]);
	$server->append_conf('postgresql.conf',
		"shared_preload_libraries = 'taskshed'");
	$server->start;
	return $server;
}

# Commands in a shell, one after the other, where the programs of the server find this one.
sub run_shell
{
	my ($server, $commands) = @_;
	my $out;

	local $ENV{PGHOST} = $server->host;
	local $ENV{PGPORT} = $server->port;
	local $ENV{PSQLRC} = '/dev/null';
	ok( IPC::Run::run(
			[ 'sh', '-ec', $commands ],
			'<', \'', '>&', \$out,
			init => sub { chdir $PostgreSQL::Test::Utils::tmp_check }),
		'run by sh') or diag($commands . $out);
	return;
}

# What operations.md says of a dump leads to a server that has the tasks.
sub test_dump
{
	my ($old, $file) = @_;
	my $new        = server('restored');
	my ($commands) = grep { /^pg_dump/m }
	  map { $_->{text} }
	  grep { $_->{language} eq 'sh' } blocks(read_page($file));
	my $tasks =
	  'SELECT owner, task_id, %s, kwargs, run_at FROM taskshed.tasks';
	my ($dump, $restore) = split /\n\n/, $commands;

	# The page has ended with the removal of the extension.
	$old->safe_psql(
		'shop', q{
		CREATE EXTENSION taskshed;
		GRANT USAGE ON SCHEMA taskshed TO app;
		SELECT taskshed.add_task('public.nothing', '2100-01-01', owner => 'app', validate => false)}
	);
	run_shell($old, $dump);
	run_shell($new, $restore);
	is( $new->safe_psql('shop', sprintf $tasks, 'state'),
		$old->safe_psql('shop', sprintf $tasks, q{'held'}),
		'the tasks are there, and held');
	is($new->safe_psql('shop', 'SELECT count(*) FROM taskshed.tasks'),
		1, 'one of them');
	ok( $new->poll_query_until(
			'shop', q{SELECT state = 'held' FROM taskshed.status}),
		'as the database is');
	$new->safe_psql('shop', 'SELECT taskshed.activate()');
	ok( $new->poll_query_until(
			'shop', q{SELECT state = 'active' FROM taskshed.status}),
		'until activate');
	$new->stop;
	return;
}

my ($node, $pages);
foreach my $file (glob 'docs/*.md')
{
	next
	  if $file eq 'docs/clients.md'
	  || !grep { $_->{language} eq 'sql' } blocks(read_page($file));

	# A page may change settings, so each has a server of its own.
	$node->stop if $node;
	$node = server($file =~ s{.*/|\..*}{}gr);
	$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
	$node->safe_psql('postgres', 'CREATE DATABASE shop OWNER app');
	$node->safe_psql('shop',
		'CREATE EXTENSION taskshed; GRANT USAGE ON SCHEMA taskshed TO app');
	subtest $file => sub {
		run_page(
			{
				node     => $node,
				database => 'shop',
				user     => 'postgres',
				role     => $as_superuser{$file} ? undef : 'app'
			},
			$file);
	};
	subtest "the dump of $file" => sub { test_dump($node, $file) }
	  if $file eq 'docs/operations.md';
	$pages++;
}
cmp_ok($pages, '>=', 7, 'the chapters were found');

# All our names that pages mention, wherever they do, are there: with their schema; as calls in prose and
# tables, where the schema may be left out; and alone in backticks, if they look like our functions.
$node->safe_psql('postgres', 'CREATE EXTENSION taskshed');

sub names
{
	my ($sql) = @_;

	return map { $_ => 1 } split /\n/, $node->safe_psql('postgres', $sql);
}

my %of_schema;
foreach my $schema ('taskshed', '_taskshed')
{
	$of_schema{$schema} = {
		names(
			qq{SELECT relname FROM pg_class WHERE relnamespace = '$schema'::regnamespace
			UNION SELECT proname FROM pg_proc WHERE pronamespace = '$schema'::regnamespace
			UNION SELECT split_part(name, '.', 2) FROM pg_settings WHERE name ~ '^$schema\\.'}
		)
	};
}
my %ours   = %{ $of_schema{taskshed} };
my %called = (
	names('SELECT proname FROM pg_proc'),

	# of the language, and of those that clients.md is about
	map { $_ => 1 }
	  qw(array coalesce extract delete getSQLState save setObject text timedelta update)
);
my %words = (
	%ours,
	names(
		q{SELECT unnest(proargnames) FROM pg_proc WHERE pronamespace = 'taskshed'::regnamespace}
	));

foreach my $file (glob '*.md docs/*.md src/*.md src/*/*.md')
{
	my $page = read_page($file);
	my %wrong;

	while ($page =~
		/(?<![\w@])(_?taskshed)\.(?!(?:md|svg|control|spec|[ch])\b)(\w+)/g)
	{
		$wrong{"$1.$2"} = 1 if !$of_schema{$1}{$2};
	}
	foreach my $code ($file =~ /^src/ ? () : prose($file) =~ /`([^`\n]+)`/g)
	{
		$wrong{"$_()"} = 1
		  foreach grep { !$called{$_} } $code =~ /(?<![\w.])([a-z]\w*)\(/g;
		$wrong{$code} = 1
		  if $code =~
		  /^[a-z]+(?:_all)?_(?:tasks?|callbacks?|pg_cron|execution_times?|runs)$/
		  && !$words{$code};
	}
	is(join(' ', sort keys %wrong), '', "what $file mentions is there");
}

$node->stop;
done_testing();
