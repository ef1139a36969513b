/*-------------------------------------------------------------------------
 *
 * overview.c
 *		Texts and times of bounded width, for the view overview.
 *
 * What psql prints of that view has to fit a terminal, whatever is in it.  psql
 * counts columns, by the encoding of the client: two for a Chinese character,
 * none for an accent of its own, and one for each byte if it does not know what
 * the bytes are.  What is no character to it, it writes as \x01 or \u0085, and
 * after a line feed it begins a new line.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "api/api.h"

/* Characters of no width cannot make a text longer than so many bytes a column. */
#define BYTES_PER_COLUMN	16

/*
 * Return how many columns a character of len bytes takes at the client; -1 if it
 * is none that can be printed.  encoding is the one that the text is read in.
 */
static int
overview_columns(const char *character, int len, int encoding)
{
	int			client = pg_get_client_encoding();
	char	   *converted;
	int			columns = 0;

	if (!IS_HIGHBIT_SET(*character))
		return pg_encoding_dsplen(PG_SQL_ASCII, character);
	if (client == encoding)
	{
		/* (what is cut off has bytes that must not be looked for) */
		return len < pg_encoding_mblen(encoding, character) ? len :
			pg_encoding_dsplen(encoding, character);
	}
	if (client == PG_SQL_ASCII)
		return pg_encoding_dsplen(encoding, character) < 0 ? -1 : len;

	/* fails if the client has no such character, as sending it would */
	converted = pg_server_to_client(character, len);
	if (converted == character)
		return pg_encoding_dsplen(encoding, character);
	for (char *c = converted; *c != '\0'; c += pg_encoding_mblen(client, c))
	{
		int			more = pg_encoding_dsplen(client, c);

		if (more < 0)
			return -1;
		columns += more;
	}
	pfree(converted);
	return columns;
}

/*
 * Cut a text to a number of columns.  What cannot be printed, line feeds among it,
 * becomes a space.  That it was cut is shown by an ellipsis, or by three points where
 * there is no such character.
 */
PG_FUNCTION_INFO_V1(ts_fit);
Datum
ts_fit(PG_FUNCTION_ARGS)
{
	char	   *next;
	int			limit;
	StringInfoData fit;
	const char *ellipsis = "...";
	int			ellipsis_columns = 3;
	int			encoding = GetDatabaseEncoding();
	int			columns = 0;
	int			kept = 0;		/* bytes that leave place for the ellipsis */

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	next = text_to_cstring(PG_GETARG_TEXT_PP(0));
	limit = PG_GETARG_INT32(1);

	/* a database that does not know its encoding has what clients have sent */
	if (encoding == PG_SQL_ASCII)
		encoding = pg_get_client_encoding();
	if (encoding == PG_UTF8 && pg_get_client_encoding() == PG_UTF8)
	{
		ellipsis = "\xE2\x80\xA6";
		ellipsis_columns = 1;
	}

	initStringInfo(&fit);
	while (*next != '\0')
	{
		int			len = strnlen(next, pg_encoding_mblen(encoding, next));
		int			more = overview_columns(next, len, encoding);

		columns += more < 0 ? 1 : more;
		if (columns > limit || fit.len / BYTES_PER_COLUMN > limit)
		{
			fit.len = kept;
			appendStringInfoString(&fit, ellipsis);
			break;
		}
		appendBinaryStringInfo(&fit, more < 0 ? " " : next, more < 0 ? 1 : len);
		if (columns <= limit - ellipsis_columns)
			kept = fit.len;
		next += len;
	}
	PG_RETURN_TEXT_P(cstring_to_text_with_len(fit.data, fit.len));
}

/*
 * Write a time in the session's time zone, in 19 columns at most whatever
 * DateStyle is: to the second, and far away to the day.
 */
PG_FUNCTION_INFO_V1(ts_short_time);
Datum
ts_short_time(PG_FUNCTION_ARGS)
{
	TimestampTz at;
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;
	char	   *shown;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	at = PG_GETARG_TIMESTAMPTZ(0);
	if (TIMESTAMP_NOT_FINITE(at))
		PG_RETURN_TEXT_P(cstring_to_text(TIMESTAMP_IS_NOEND(at) ? "infinity" : "-infinity"));
	if (timestamp2tm(at, &tz, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	if (tm.tm_year < 1)
		shown = psprintf("%04d-%02d-%02d BC", 1 - tm.tm_year, tm.tm_mon, tm.tm_mday);
	else if (tm.tm_year > 9999)
		shown = psprintf("%d-%02d-%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
	else
		shown = psprintf("%04d-%02d-%02d %02d:%02d:%02d", tm.tm_year, tm.tm_mon, tm.tm_mday,
						 tm.tm_hour, tm.tm_min, tm.tm_sec);
	PG_RETURN_TEXT_P(cstring_to_text(shown));
}
