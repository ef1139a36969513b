/*-------------------------------------------------------------------------
 *
 * task_settings.c
 *		The settings that a task has for its runs.
 *
 * They are an object in the task's row.  They are checked when the task is scheduled,
 * with the rights of its owner, and again when they are set: a right may have been
 * taken away, a library may be gone.
 *
 * Some cannot be: who the worker is, what its transactions are, and what our own
 * processes depend on.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "shared/shared.h"

/* What cannot be set, as the beginning of a name, and what to do instead. */
static const struct
{
	const char *name;
	bool		whole;			/* it is all of the name */
	const char *hint;
}			refused[] =

{
	{"role", true, "A task runs as its owner."},
	{"session_authorization", true, "A task runs as its owner."},
	{"transaction_", false, "Set default_transaction_isolation and the like instead."},
	{"statement_timeout", true, "Give the task a timeout."},
	{"application_name", true, "It is that of the worker."},
	{"exit_on_error", true, "An error ends the run, not the worker."},
	{"taskshed.", false, "ALTER ROLE sets it for all tasks of a role."}
};

/* Refuse the name of what cannot be set for a task: 22023. */
static void
task_settings_check_name(const char *name)
{
	for (int i = 0; i < lengthof(refused); i++)
	{
		bool		is_it = refused[i].whole ? pg_strcasecmp(name, refused[i].name) == 0 :
		pg_strncasecmp(name, refused[i].name, strlen(refused[i].name)) == 0;

		if (is_it)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%s\" cannot be set for a task", name),
					 errhint("%s", refused[i].hint)));
	}
}

/* Return a value as text, as SET takes it.  22023 for what is none. */
static char *
task_settings_value(const char *name, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "on" : "off");
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the value of setting \"%s\" must be a string, a number or a boolean",
							name)));
	}
}

/*
 * Give each setting its value for the session, as that role, or only check whether
 * that can be done.  Errors: 22023 it is no object, or has what cannot be set; 42704 no
 * such setting; 42501 the role may not set it; and what the server says of a value.
 */
static void
task_settings_set(Jsonb *settings, Oid role, bool change)
{
	GucContext	context = superuser_arg(role) ? PGC_SUSET : PGC_USERSET;
	JsonbIterator *it = JsonbIteratorInit(&settings->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(settings))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("settings must be a JSON object"),
				 errhint("Its keys are the names of settings, as in {\"work_mem\": \"1GB\"}.")));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			name = pnstrdup(value.val.string.val, value.val.string.len);
			task_settings_check_name(name);
		}
		else if (token == WJB_VALUE)
			(void) set_config_option_ext(name, task_settings_value(name, &value), context,
										 PGC_S_SESSION, role, GUC_ACTION_SET, change, ERROR, false);
	}
}

/* Find out whether a role can have a task with these settings. */
void
task_settings_check(Jsonb *settings, Oid role)
{
	task_settings_set(settings, role, false);
}

/*
 * Set them for the session, whose user is the task's owner, until it is put back as
 * new.  The transaction must commit for that.
 */
void
task_settings_apply(Jsonb *settings)
{
	task_settings_set(settings, GetUserId(), true);
}
