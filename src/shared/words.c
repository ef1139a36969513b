/*-------------------------------------------------------------------------
 *
 * words.c
 *		The words of settings, parameters and columns, and what they are in C.
 *
 * Each list of words is here once, whoever reads or writes them: a setting, a
 * parameter of add_task, a column of our tables, or several of these.  The form
 * of the lists is the server's own, for settings.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "shared/words.h"

const struct config_enum_entry history_words[] = {
	{"all", HISTORY_ALL, false},
	{"errors", HISTORY_ERRORS, false},
	{"none", HISTORY_NONE, false},
	{NULL, 0, false}
};

const struct config_enum_entry catch_up_words[] = {
	{"coalesce", CATCH_UP_COALESCE, false},
	{"all", CATCH_UP_ALL, false},
	{"skip", CATCH_UP_SKIP, false},
	{NULL, 0, false}
};

const struct config_enum_entry run_status_words[] = {
	{"succeeded", RUN_SUCCEEDED, false},
	{"failed", RUN_FAILED, false},
	{"timeout", RUN_TIMEOUT, false},
	{"cancelled", RUN_CANCELLED, false},
	{"interrupted", RUN_INTERRUPTED, false},
	{"missed", RUN_MISSED, false},
	{"skipped", RUN_SKIPPED, false},
	{NULL, 0, false}
};

const struct config_enum_entry after_status_words[] = {
	{"succeeded", AFTER_SUCCEEDED, false},
	{"ended", AFTER_ENDED, false},
	{"failed", AFTER_FAILED, false},
	{NULL, 0, false}
};

/* Return the word for a value, which must have one. */
const char *
word_text(const struct config_enum_entry *words, int value)
{
	while (words->name != NULL && words->val != value)
		words++;
	Assert(words->name != NULL);
	return words->name;
}

/*
 * Return the value for a word, which is a text; otherwise, if it is none of these.
 */
int
word_value(const struct config_enum_entry *words, Datum word, int otherwise)
{
	text	   *letters = DatumGetTextPP(word);
	size_t		length = VARSIZE_ANY_EXHDR(letters);

	for (; words->name != NULL; words++)
	{
		if (strlen(words->name) == length && memcmp(words->name, VARDATA_ANY(letters), length) == 0)
			return words->val;
	}
	return otherwise;
}

/* List the words for a hint, as in "a", "b" or "c". */
char *
word_list(const struct config_enum_entry *words)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; words->name != NULL; words++)
	{
		if (list.len > 0)
			appendStringInfoString(&list, words[1].name != NULL ? ", " : " or ");
		appendStringInfo(&list, "\"%s\"", words->name);
	}
	return list.data;
}
