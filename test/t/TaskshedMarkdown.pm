# Pages as they are written: their fenced blocks, what can be linked to, and what they link to.
# For the tests that run their examples, and for scripts/check-pages, which needs no server.

package TaskshedMarkdown;

use strict;
use warnings;
use utf8;

use Exporter 'import';

our @EXPORT_OK = qw(read_page blocks prose anchors links);

sub read_page
{
	my ($file) = @_;

	open my $fh, '<:encoding(UTF-8)', $file or die "$file: $!";
	local $/ = undef;
	return scalar <$fh>;
}

# The fenced blocks of a page: language, line number, line of the end, and text of each.
sub blocks
{
	my ($page) = @_;
	my @blocks;
	my $block;
	my $line = 0;

	foreach (split /\n/, $page)
	{
		$line++;
		if (!$block && /^```(\w*)$/)
		{
			$block = { language => $1, line => $line, text => '', end => 0 };
			push @blocks, $block;
		}
		elsif ($block && /^```$/)
		{
			$block->{end} = $line;
			undef $block;
		}
		elsif ($block)
		{
			$block->{text} .= "$_\n";
		}
	}
	die 'a block is not closed' if $block;
	return @blocks;
}

# A page as it is read, without its fenced blocks.
sub prose
{
	my ($file) = @_;

	return read_page($file) =~ s/^```.*?^```$//msgr;
}

# What a link can point to in a page.
sub anchors
{
	my ($file) = @_;
	my %anchors;

	foreach my $heading (prose($file) =~ /^#+ (.*)$/mg)
	{
		my $anchor = lc $heading;

		$anchor =~ s/[^\w -]//g;
		$anchor =~ tr/ /-/;
		$anchors{$anchor} = 1;
	}
	return \%anchors;
}

# The links of a page to files here: [as it is written, file, anchor or undef].
sub links
{
	my ($file)   = @_;
	my ($folder) = $file =~ m{^(.*/)?};
	my @links;

	foreach my $link (prose($file) =~ /\]\(([^)]+)\)/g)
	{
		next if $link =~ /^https?:/;
		my ($to, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/;

		push @links,
		  [ $link, $to eq '' ? $file : ($folder // '') . $to, $anchor ];
	}
	foreach (@links)
	{
		# docs/../README.md is README.md
		1 while $_->[1] =~ s{(?<![^/])(?!\.\.)[^/]+/\.\./}{};
	}
	return @links;
}

1;
